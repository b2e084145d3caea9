//! The records of files: listeners, links with their forwards, and links that peers dial.

use seaprox::config::{
    Forward, FrontEndConfig, FrontEndOption, Link, Listener, OptionKind, OptionValue, Place, Server, Service, Timers,
};
use seaprox::{AddressError, Bind, Upstream, split_port_range};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::reader::{Reader, Text, found};
use super::source::Entry;
use crate::cli::{
    Draft, FORWARDS, OPTIONS, OptionSpec, Section, UNIX_WITHOUT_DATAGRAMS, forwards, parsers, split_list, suggest,
};
use crate::frontends::FrontEndKind;
use crate::links::addresses;

/// A record while it is read.
struct Open<'t> {
    section: Section,
    /// Its keys.
    entries: Vec<Entry<'t>>,
    /// The table itself.
    entry: Entry<'t>,
    value: &'t Spanned<DeValue<'t>>,
    /// Its place, once its name is known.
    place: Place,
    draft: Draft,
}

impl<'t> Open<'t> {
    fn get(&self, key: &str) -> Option<Entry<'t>> {
        self.entries.iter().find(|entry| entry.name() == key).copied()
    }
}

impl Reader<'_> {
    /// Reads the records of all files into the draft.
    pub fn records(&mut self, entries: &[Entry<'_>], draft: &mut Draft) {
        let base = draft.clone();
        let all: Vec<_> = entries
            .iter()
            .filter_map(|entry| Some((*entry, SECTIONS.iter().find(|(key, _)| *key == entry.name())?.1)))
            .flat_map(|(entry, section)| {
                self.tables(&Place::root(), entry).into_iter().map(move |(value, table)| (entry, section, value, table))
            })
            .collect();
        for (entry, section, _, table) in &all {
            self.note_names(*entry, *section, table);
        }
        for (entry, section, value, table) in all {
            let open = Open {
                section,
                entries: entry.file.entries(table),
                entry,
                value,
                place: Place::root(),
                draft: base.clone(),
            };
            match section {
                Section::Link => {
                    let link = self.link(open, &base);
                    draft.process.links.push(link);
                }
                Section::Serve => {
                    let server = self.server(open, &base);
                    draft.process.servers.push(server);
                }
                _ => {
                    let listeners = self.listeners(open, &base);
                    draft.process.listeners.extend(listeners);
                }
            }
        }
    }

    /// Notes the names that stand in a record, so that no name is made that another record has.
    fn note_names(&mut self, entry: Entry<'_>, section: Section, table: &DeTable<'_>) {
        let forwards = table.get("forward").and_then(|value| value.get_ref().as_array());
        let forwards = forwards.into_iter().flat_map(|array| array.iter()).filter_map(|item| item.get_ref().as_table());
        let all = [(section, table)].into_iter().chain(forwards.map(|table| (Section::Listener, table)));
        for (section, table) in all {
            let Some(value) = table.get("name") else { continue };
            let Some(name) = value.get_ref().as_str() else { continue };
            if !self.names.of(section).note(name) {
                let text = format!("name: found {name:?}, expected a name that no other record of its kind has");
                self.problems.add(entry.file.position(value.span()), text);
            }
        }
    }

    /// Returns the texts of a key: of one value, or of an array.
    fn strings(&mut self, place: &Place, entry: Option<Entry<'_>>, spec: &OptionSpec) -> Option<Vec<Text>> {
        let entry = entry?;
        let items: Vec<&Spanned<DeValue<'_>>> = match entry.value.get_ref() {
            DeValue::Array(items) => items.iter().collect(),
            _ => vec![entry.value],
        };
        let texts: Vec<_> = items.into_iter().map(|item| self.text(place, entry, item, spec)).collect();
        texts.into_iter().collect()
    }

    /// Names a record, and notes its position. `address` is the first address of the record.
    fn name(&mut self, open: &mut Open<'_>, kind: &'static str, address: Option<&str>) -> String {
        let given = open.get("name").and_then(|entry| {
            let position = entry.position();
            match entry.value.get_ref() {
                DeValue::String(text) => self.string(&Place::root(), "name", text, position),
                other => {
                    let text = format!("name: found {}, expected a name in quotes", found(other));
                    self.fail(&Place::root(), position, text);
                    None
                }
            }
        });
        let names = self.names.of(open.section);
        let name = given.unwrap_or_else(|| names.make(address.unwrap_or(kind)));
        open.place = Place::record(kind, &name);
        self.positions.add(open.place.clone(), open.entry.file.position(open.value.span()));
        for entry in &open.entries {
            self.positions.add(open.place.field(entry.name().to_owned()), entry.position());
        }
        name
    }

    fn listeners(&mut self, mut open: Open<'_>, base: &Draft) -> Vec<Listener> {
        let name = {
            let first = open.get("listen").and_then(|entry| first_text(entry.value));
            let front = open.get("front").and_then(|entry| first_text(entry.value));
            self.name(&mut open, "listener", first.or(front).as_deref())
        };
        let place = open.place.clone();
        let kind = self.front(&open);
        let (options, target): (&[FrontEndOption], _) =
            kind.map_or((&[], None), |kind| (kind.spec().options, kind.spec().target()));
        let mut own = vec!["name", "listen", "front", "via"];
        // Without a known front end its options cannot be told from unknown keys.
        let all_options = FrontEndKind::ALL.into_iter().flat_map(|kind| kind.spec().options);
        own.extend(all_options.map(|option| option.name));
        let entries = open.entries.clone();
        self.options(Section::Listener, &place, entries, &own, &mut open.draft);
        let default = kind.map(|kind| kind.spec().default_address).unwrap_or("127.0.0.1:0");
        let binds = match open.get("listen") {
            Some(entry) => self.binds(&place, entry),
            None => Bind::parse(default).into_iter().collect(),
        };
        let mut front_end = FrontEndConfig::new(kind.map_or("", |kind| kind.spec().name));
        for option in options.iter().filter(|option| Some(option.name) != target) {
            let Some(entry) = open.get(option.name) else { continue };
            if let Some(value) = self.front_end_option(&place, entry, option) {
                front_end.options.insert(option.name.to_owned(), value);
            }
        }
        for entry in open.entries.iter().filter(|entry| kind.is_some() && own[4..].contains(&entry.name())) {
            if !options.iter().any(|option| option.name == entry.name()) {
                let text = format!(
                    "{}: found it beside front = {:?}, expected no such key there",
                    entry.name(),
                    front_end.name
                );
                self.fail(&place, entry.key_position(), text);
            }
        }
        let link = open.get("via").and_then(|entry| self.strings(&place, Some(entry), spec("via", Section::Listener)));
        let link = link.and_then(|mut texts| texts.pop()).map(|text| text.text);
        let targets = target.map(|target| self.targets(&place, open.get(target), target)).unwrap_or_default();
        let relays = self.relays(&open, binds, &targets);
        open.draft.finish();
        let template =
            Listener { link, ..listener_of(&open.draft, base, Listener::new(name.clone(), Vec::new(), front_end)) };
        let mut listeners: Vec<Listener> = Vec::new();
        for (addresses, to) in relays {
            let mut listener = template.clone();
            match Listener::addresses_of(addresses, open.draft.tcp, open.draft.udp) {
                Ok(addresses) => listener.addresses = addresses,
                Err(unix) => {
                    let position =
                        open.get("listen").map_or_else(|| open.entry.key_position(), |entry| entry.position());
                    self.fail(&place, position, format!("listen: {unix}: {UNIX_WITHOUT_DATAGRAMS}"));
                }
            }
            if let (Some(target), false) = (target, to.is_empty()) {
                listener.front_end = listener.front_end.with(target, to);
            }
            if !listeners.is_empty() {
                listener.name = self.names.of(Section::Listener).make(&name);
                let part = Place::record("listener", &listener.name);
                self.positions.add(part, open.entry.file.position(open.value.span()));
            }
            listeners.push(listener);
        }
        listeners
    }

    /// Returns the front end of a listener.
    fn front(&mut self, open: &Open<'_>) -> Option<FrontEndKind> {
        let names: Vec<_> = FrontEndKind::ALL.into_iter().map(|kind| kind.spec().name).collect();
        let form = format!("expected {}", names.join(" or "));
        let Some(entry) = open.get("front") else {
            if !self.is_incomplete {
                let position = open.entry.file.position(open.value.span());
                self.fail(&open.place, position, format!("front: {form}"));
            }
            return None;
        };
        let text = match entry.value.get_ref() {
            DeValue::String(text) => self.string(&open.place, "front", text, entry.position())?,
            other => {
                self.fail(&open.place, entry.position(), format!("front: found {}, {form}", found(other)));
                return None;
            }
        };
        let kind = FrontEndKind::find(&text);
        if kind.is_none() {
            let hint = suggest::hint(&text, "", names);
            self.fail(&open.place, entry.position(), format!("front: found {text:?}, {form}{hint}"));
        }
        kind
    }

    fn front_end_option(&mut self, place: &Place, entry: Entry<'_>, option: &FrontEndOption) -> Option<OptionValue> {
        let spec = spec(option.name, Section::Listener);
        let Text { text, position, variables } = self.strings(place, Some(entry), spec)?.pop()?;
        let value = match option.kind {
            OptionKind::Flag => parsers::flag(&text).map(OptionValue::Flag),
            OptionKind::Number(..) => parsers::number(spec.value, &text).map(OptionValue::Number),
            OptionKind::Duration => parsers::duration(&text).map(OptionValue::Duration),
            OptionKind::Choice(words) => parsers::word(words, &text).map(|_| OptionValue::Text(text.clone())),
            _ => Ok(OptionValue::Text(text.clone())),
        };
        value
            .map_err(|expected| {
                let error = variables.hidden(format!("found {text:?}, {expected}"));
                self.fail(place, position, format!("{}: {error}", option.name));
            })
            .ok()
    }

    /// Returns the addresses that a listener listens on. A range stands for its single ports.
    fn binds(&mut self, place: &Place, entry: Entry<'_>) -> Vec<Bind> {
        let mut all = Vec::new();
        for Text { text, position, variables } in
            self.strings(place, Some(entry), spec("listen", Section::Listener)).unwrap_or_default()
        {
            match range(&text, BIND) {
                Ok(ports) => all.extend(ports),
                Err(error) => {
                    let error = variables.hidden(format!("found {text:?}, {error}"));
                    self.fail(place, position, format!("listen: {error}"));
                }
            }
        }
        all
    }

    /// Returns the targets of a listener, each as the list of its ports.
    fn targets(&mut self, place: &Place, entry: Option<Entry<'_>>, key: &str) -> Vec<Vec<Upstream>> {
        let mut all = Vec::new();
        for Text { text, position, variables } in
            self.strings(place, entry, spec(key, Section::Listener)).unwrap_or_default()
        {
            for target in split_list(&text) {
                let parsed = match Upstream::parse(target) {
                    Ok(service @ Upstream::Service(_)) => Ok(vec![service]),
                    _ => range(target, UPSTREAM),
                };
                match parsed {
                    Ok(ports) => all.push(ports),
                    Err(error) => {
                        let error = variables.hidden(format!("found {target:?}, {error}"));
                        self.fail(place, position.clone(), format!("{key}: {error}"));
                    }
                }
            }
        }
        all
    }

    /// Returns the addresses of each listener with its targets. A range of target ports belongs to the ports that are
    /// listened on, in their order, so that each of them becomes a listener.
    fn relays(
        &mut self,
        open: &Open<'_>,
        binds: Vec<Bind>,
        targets: &[Vec<Upstream>],
    ) -> Vec<(Vec<Bind>, Vec<Upstream>)> {
        let at =
            |index: usize| targets.iter().filter_map(|ports| ports.get(index % ports.len().max(1)).cloned()).collect();
        if targets.iter().all(|ports| ports.len() == 1) {
            return vec![(binds, at(0))];
        }
        if let Some(wrong) = targets.iter().find(|ports| ports.len() != 1 && ports.len() != binds.len()) {
            let position =
                open.get("to").map_or_else(|| open.entry.file.position(open.value.span()), |entry| entry.position());
            let (ports, listened) = (wrong.len(), binds.len());
            let text = format!(
                "to: found {ports} ports beside {listened} ports of listen, expected one port, or one for each port"
            );
            self.fail(&open.place, position, text);
            return vec![(binds, at(0))];
        }
        binds.into_iter().enumerate().map(|(index, bind)| (vec![bind], at(index))).collect()
    }

    fn link(&mut self, mut open: Open<'_>, base: &Draft) -> Link {
        let texts = self.strings(&Place::root(), open.get("connect"), spec("connect", Section::Link));
        let parsed = texts.iter().flatten().map(|text| addresses::server(&text.text)).collect::<Vec<_>>();
        let peers: Vec<Upstream> = parsed.iter().flatten().cloned().collect();
        let address = Some(Link::default_name(&peers)).filter(|name| !name.is_empty());
        let name = self.name(&mut open, "link", address.as_deref());
        let place = open.place.clone();
        for (Text { text, position, variables }, _) in texts.iter().flatten().zip(&parsed).filter(|(_, it)| it.is_err())
        {
            let found = variables.hidden(format!("found {text:?}"));
            let text = format!("connect: {found}, expected HOST[:PORT] or [IPV6][:PORT]");
            self.fail(&place, position.clone(), text);
        }
        if parsed.is_empty() && !self.is_incomplete {
            self.fail(&place, open.entry.file.position(open.value.span()), "connect: expected HOST[:PORT]");
        }
        if !peers.is_empty() {
            open.draft.link.peers = peers;
        }
        let entries = open.entries.clone();
        self.options(Section::Link, &place, entries, &["name", "connect", "forward"], &mut open.draft);
        open.draft.finish();
        if open.draft.link.subflows > 1 && open.draft.paths.iter().any(|path| path.local_port.is_some()) {
            let position = self.positions.find(&place.field("path"));
            self.fail(&place, position, "path: found a source port, expected one subflow over each path");
        }
        let mut forwards = Vec::new();
        if let Some(entry) = open.get("forward") {
            for (value, table) in self.tables(&place, entry) {
                forwards.extend(self.forward(&place, entry, value, table));
            }
        }
        let Draft { process, link, .. } = open.draft;
        let (node, inherited) = (process.node, &base.process.node);
        Link {
            name,
            carrier: (node.carrier != inherited.carrier).then_some(node.carrier),
            mode: (node.mode != inherited.mode).then_some(node.mode),
            timing: (node.timing != inherited.timing).then_some(node.timing),
            forwards,
            ..link
        }
    }

    fn forward(
        &mut self,
        link: &Place,
        entry: Entry<'_>,
        value: &Spanned<DeValue<'_>>,
        table: &DeTable<'_>,
    ) -> Option<Forward> {
        let position = entry.file.position(value.span());
        let entries = entry.file.entries(table);
        let (mut kinds, mut name) = (Vec::new(), None);
        for entry in entries {
            match entry.name() {
                "name" => match entry.value.get_ref() {
                    DeValue::String(text) => name = Some(self.string(link, "name", text, entry.position())?),
                    other => {
                        let text = format!("name: found {}, expected a name in quotes", found(other));
                        self.fail(link, entry.position(), text);
                    }
                },
                key if FORWARDS.contains(&key) => kinds.push(entry),
                key => {
                    let hint = suggest::hint(key, "", FORWARDS.into_iter().chain(["name"]));
                    let form = format!("expected {} or name", FORWARDS.join(", "));
                    self.fail(link, entry.key_position(), format!("{key}: found an unknown key, {form}{hint}"));
                    return None;
                }
            }
        }
        let [kind] = kinds[..] else {
            let text = format!("forward: found {} of {}, expected one of them", kinds.len(), FORWARDS.join(", "));
            self.fail(link, position, text);
            return None;
        };
        let Text { text, position: at, variables } = self.text(link, kind, kind.value, spec_of(kind.name()))?;
        let proxy = |front_end: &'static str| {
            forwards::listen(&text).map(|listen| (listen, Service::Local(FrontEndConfig::new(front_end))))
        };
        let parsed = match kind.name() {
            "local" => forwards::local(&text)
                .map(|it| (it.listen, Service::Local(FrontEndConfig::new("static").with("to", it.to)))),
            "remote" => forwards::reverse(&text).map(|it| (it.listen, Service::Remote(it.to))),
            "dynamic" => proxy("socks"),
            _ => proxy("http"),
        };
        match parsed {
            Ok((listen, service)) => {
                let name = name.unwrap_or_else(|| self.names.of(Section::Listener).make(&listen.to_string()));
                self.positions.add(link.clone().within("forward", &name), position);
                Some(Forward { name, listen, service })
            }
            Err(error) => {
                let error = variables.hidden(format!("found {text:?}, {error}"));
                self.fail(link, at, format!("{}: {error}", kind.name()));
                None
            }
        }
    }

    fn server(&mut self, mut open: Open<'_>, base: &Draft) -> Server {
        let texts =
            self.strings(&Place::root(), open.get("listen"), spec("listen", Section::Serve)).unwrap_or_default();
        let mut addresses = Vec::new();
        let mut wrong = Vec::new();
        for Text { text, position, variables } in texts {
            match addresses::listen(&text) {
                Ok(address) => addresses.push(address),
                Err(error) => {
                    let error = variables.hidden(format!("found {text:?}, {error}"));
                    wrong.push((position, format!("listen: {error}")));
                }
            }
        }
        let first = addresses.first().map(Bind::to_string);
        let name = self.name(&mut open, "server", first.as_deref());
        let place = open.place.clone();
        let has_wrong = !wrong.is_empty();
        wrong.into_iter().for_each(|(position, text)| self.fail(&place, position, text));
        if addresses.is_empty() && !has_wrong && !self.is_incomplete {
            let position = open.entry.file.position(open.value.span());
            self.fail(&place, position, "listen: expected at least one address");
        }
        let entries = open.entries.clone();
        self.options(Section::Serve, &place, entries, &["name", "listen"], &mut open.draft);
        open.draft.finish();
        let Draft { process, server, .. } = open.draft;
        let (node, inherited) = (process.node, &base.process.node);
        Server {
            name,
            addresses,
            carrier: (node.carrier != inherited.carrier).then_some(node.carrier),
            mode: (node.mode != inherited.mode).then_some(node.mode),
            timing: (node.timing != inherited.timing).then_some(node.timing),
            ..server
        }
    }
}

/// The parser of one kind of addresses, and its ports.
struct Address<T> {
    parse: fn(&str) -> Result<T, AddressError>,
    port: fn(&T) -> Option<u16>,
    with_port: fn(&T, u16) -> T,
}

/// Parses an address, or a range of ports. Returns the address with each of its ports.
fn range<T>(text: &str, address: Address<T>) -> Result<Vec<T>, AddressError> {
    let (first, count) = split_port_range(text)?;
    let first = (address.parse)(&first)?;
    // The port cannot overflow, because both ends of the range were parsed. Only addresses with a port have a range.
    let port = (address.port)(&first).unwrap_or(0);
    let ports = port..=port.saturating_add(count.saturating_sub(1));
    Ok(ports.map(|port| (address.with_port)(&first, port)).collect())
}

const BIND: Address<Bind> = Address { parse: Bind::parse, port: Bind::port, with_port: Bind::with_port };
const UPSTREAM: Address<Upstream> =
    Address { parse: Upstream::parse, port: Upstream::port, with_port: Upstream::with_port };

/// Returns a listener with the fields of a draft that differ from those of the process.
fn listener_of(draft: &Draft, base: &Draft, listener: Listener) -> Listener {
    let (mine, theirs) = (&draft.process, &base.process);
    let (timers, inherited) = (&mine.loops.timeouts, &theirs.loops.timeouts);
    let differs = |one, other| (one != other).then_some(one);
    Listener {
        rules: (mine.access.rules != theirs.access.rules).then(|| mine.access.rules.clone()),
        users: (mine.access.users != theirs.access.users).then(|| mine.access.users.clone()),
        timers: Timers {
            handshake: differs(timers.handshake, inherited.handshake),
            connect: differs(timers.connect, inherited.connect),
            keep_alive: differs(timers.keep_alive, inherited.keep_alive),
            idle: differs(timers.idle, inherited.idle),
            half_closed: differs(timers.half_closed, inherited.half_closed),
            linger: None,
            first_answer: differs(timers.first_answer, inherited.first_answer),
            flow_idle: differs(timers.flow_idle, inherited.flow_idle),
            association_idle: differs(timers.association_idle, inherited.association_idle),
        },
        backlog: (mine.loops.limits.backlog != theirs.loops.limits.backlog).then_some(mine.loops.limits.backlog),
        family: (mine.loops.family != theirs.loops.family).then_some(mine.loops.family),
        nodelay: (mine.loops.nodelay != theirs.loops.nodelay).then_some(mine.loops.nodelay),
        tcp_keepalive: differs(mine.loops.tcp_keepalive, theirs.loops.tcp_keepalive),
        unix_mode: (mine.loops.unix_mode != theirs.loops.unix_mode).then_some(mine.loops.unix_mode).flatten(),
        unix_owner: (mine.loops.unix_owner != theirs.loops.unix_owner).then(|| mine.loops.unix_owner.clone()).flatten(),
        egress: (mine.egress != theirs.egress).then(|| mine.egress.clone()),
        name: listener.name,
        addresses: listener.addresses,
        front_end: listener.front_end,
        ..draft.listener.clone()
    }
}

/// Returns the first text of a value.
fn first_text(value: &Spanned<DeValue<'_>>) -> Option<String> {
    match value.get_ref() {
        DeValue::Array(items) => items.iter().next().and_then(first_text),
        DeValue::String(text) => Some(text.to_string()),
        DeValue::Integer(number) => Some(number.to_string()),
        _ => None,
    }
}

/// Returns the row of an option of a section.
fn spec(long: &str, section: Section) -> &'static OptionSpec {
    OPTIONS.iter().find(|spec| spec.long == long && spec.sections.has(section)).unwrap_or_else(|| spec_of(long))
}

/// Returns the first row of an option.
fn spec_of(long: &str) -> &'static OptionSpec {
    match OPTIONS.iter().find(|spec| spec.long == long) {
        Some(spec) => spec,
        None => panic!("the table has no option --{long}"),
    }
}

const SECTIONS: [(&str, Section); 3] =
    [("listener", Section::Listener), ("link", Section::Link), ("serve", Section::Serve)];

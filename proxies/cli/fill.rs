//! The configuration that a command line asks for: each option fills its [`Field`], and the addresses become listeners, links
//! and forwards.
//!
//! Nothing here touches files or the network.

use seaprox::config::{
    Config, Forward, FrontEndConfig, Link, LinkPaths, Listener, OptionKind, OptionValue, Problem, Server, Service,
    Users,
};
use seaprox::{Bind, Upstream};

use super::field::{Draft, Field};
use super::record_names::RecordNames;
use super::{Command, Group, OptionSpec, Parsed, Section, UsageError, forwards, options_of};
use crate::frontends::{FrontEndKind, FrontEndSpec, Registry, socks};

impl Parsed {
    /// Returns the configuration that the options ask for. [`Parsed::check`] checks it as a whole.
    ///
    /// # Errors
    /// Fails if an option has a wrong value, or if options contradict one another.
    pub fn config(&self) -> Result<Config, UsageError> {
        let names = self.record_names()?;
        let listeners = match self.command() {
            Command::FrontEnd(kind) => self.listeners(kind, names.record.as_deref())?,
            _ => Vec::new(),
        };
        let peers = self.peers()?;
        let serves = matches!(self.command(), Command::Link | Command::Receive);
        let served = if serves { self.link_addresses()? } else { Vec::new() };
        self.check_link_options(!peers.is_empty(), !served.is_empty())?;
        let draft = self.draft(!peers.is_empty() || !served.is_empty())?;
        let mut config = draft.process;
        let own = |Listener { name, addresses, front_end, .. }| {
            let addresses = Listener::addresses_of(addresses, draft.tcp, draft.udp)
                .map_err(|unix| self.error(format!("--listen {unix}: {UNIX_WITHOUT_DATAGRAMS}")))?;
            Ok(Listener { name, addresses, front_end, ..draft.listener.clone() })
        };
        config.listeners = listeners.into_iter().map(own).collect::<Result<_, UsageError>>()?;
        let dials = !peers.is_empty();
        if dials {
            let link = self.link(draft.link, peers, &names)?;
            config.listeners.iter_mut().for_each(|listener| listener.link = Some(link.name.clone()));
            config.links.push(link);
        }
        if !served.is_empty() {
            let name = names.record.filter(|_| !dials).unwrap_or_else(|| draft.server.name.clone());
            config.servers.push(Server { name, addresses: served, ..draft.server });
        }
        if self.command() == Command::Link && !config.has_links() {
            return Err(
                self.error("expected --listen ADDR, --connect HOST[:PORT] or both; link HOST is link --connect HOST")
            );
        }
        Ok(config)
    }

    /// Returns the configuration of a console, without links, and the settings of the links that it will dial and serve.
    ///
    /// # Errors
    /// As for [`Parsed::config`].
    #[cfg(feature = "console")]
    pub fn console(&self) -> Result<(Config, Link, Server), UsageError> {
        self.check_exclusive()?;
        let Draft { process, link, server, .. } = self.draft(true)?;
        Ok((process, link, server))
    }

    /// Checks that no flag sets up a node, for a console that is attached to a process.
    ///
    /// # Errors
    /// Fails with the first such flag.
    #[cfg(feature = "console")]
    pub fn check_attached(&self) -> Result<(), UsageError> {
        let is_of_node = |option: &&OptionSpec| matches!(option.group, Group::Links | Group::Keys);
        match options_of(self.command()).filter(is_of_node).find(|option| self.count(option.long) > 0) {
            Some(option) => Err(self.error(format!("--{}: expected without --attach", option.long))),
            None => Ok(()),
        }
    }

    /// Fills in the fields of the process and its defaults, for a command that reads the rest from a file.
    ///
    /// # Errors
    /// Fails if an option has a wrong value, or if options contradict one another.
    pub fn fill_process(&self, draft: &mut Draft) -> Result<(), UsageError> {
        let is_of_process =
            |option: &&OptionSpec| option.sections.has(Section::Process) || option.sections.has(Section::Defaults);
        self.check_exclusive()?;
        for option in options_of(self.command()).filter(is_of_process).filter(|option| self.is_set(option)) {
            if !matches!(option.field, Field::Rules(_)) {
                option.field.fill(draft, self, option.long)?;
            }
        }
        let rules = self.rules()?;
        if !rules.is_empty() {
            draft.rules = Some(rules.iter().cloned().collect());
        }
        Ok(())
    }

    /// Checks a configuration that this command line has filled in.
    ///
    /// # Errors
    /// Fails with all problems, each with the options that it is about.
    pub fn check(&self, config: &Config) -> Result<(), UsageError> {
        let problems = config.validate(&Registry);
        if problems.is_empty() {
            return Ok(());
        }
        Err(self.errors(problems.iter().map(|problem| self.problem_text(problem)).collect()))
    }

    /// Returns the text of a problem, with the option that it is about.
    pub fn problem_text(&self, problem: &Problem) -> String {
        match &problem.place.field {
            Some(field) if options_of(self.command()).any(|option| option.long == field) => {
                format!("--{field}{}", problem.text(|name| format!("--{name}")))
            }
            _ => problem.to_string(),
        }
    }

    /// Returns the fields that options fill. Options about links count only in a process with a link.
    fn draft(&self, has_links: bool) -> Result<Draft, UsageError> {
        let mut draft = Draft::default();
        let counts = |option: &&OptionSpec| has_links || !matches!(option.group, Group::Links | Group::Keys);
        for option in options_of(self.command()).filter(counts).filter(|option| self.is_set(option)) {
            option.field_for(self.command()).fill(&mut draft, self, option.long)?;
        }
        draft.finish();
        let Draft { process, .. } = &mut draft;
        process.access.rules = self.rules()?;
        if let Some(file) = self.path("users").filter(|_| self.knows("users")) {
            process.access.users = Users::File(file);
        }
        if self.command() == Command::Link {
            // Clients of forwards have as much time for their requests as peers for their proofs.
            process.loops.timeouts.handshake = process.node.timing.handshake;
        }
        Ok(draft)
    }

    /// Returns the listeners of a front end: one with all addresses, or one for each target.
    fn listeners(&self, kind: FrontEndKind, name: Option<&str>) -> Result<Vec<Listener>, UsageError> {
        let spec = kind.spec();
        let name = name.unwrap_or(spec.name);
        let front_end = self.front_end(spec)?;
        let Some(target) = spec.target() else {
            return Ok(vec![Listener::new(name, self.binds()?, front_end)]);
        };
        let mut listeners: Vec<Listener> = Vec::new();
        for (addr, to) in self.relays(target)? {
            let front_end = front_end.clone().with(target, to);
            match listeners.iter_mut().find(|listener| listener.front_end == front_end) {
                Some(listener) => listener.addresses.push(addr),
                None => listeners.push(Listener::new(numbered(name, listeners.len()), vec![addr], front_end)),
            }
        }
        Ok(listeners)
    }

    /// Returns a front end with those of its options that are set.
    fn front_end(&self, spec: &FrontEndSpec) -> Result<FrontEndConfig, UsageError> {
        let mut front_end = FrontEndConfig::new(spec.name);
        for option in spec.options.iter().filter(|option| self.knows(option.name)) {
            if let Some(value) = self.front_end_option(option.name, option.kind)? {
                front_end.options.insert(option.name.to_owned(), value);
            }
        }
        Ok(front_end)
    }

    /// Returns the value of an option of a front end, if it is set. Targets are read together with the addresses.
    fn front_end_option(&self, long: &'static str, kind: OptionKind) -> Result<Option<OptionValue>, UsageError> {
        if !self.is_set(self.spec(long)) {
            return Ok(None);
        }
        Ok(Some(match kind {
            OptionKind::Flag => self.flag(long)?.into(),
            OptionKind::Number(..) => self.number(long)?.into(),
            OptionKind::Duration => self.duration(long)?.into(),
            OptionKind::Text | OptionKind::Ip => self.text(long).as_str().into(),
            OptionKind::Choice(words) => match self.word(long)?.and_then(|index| words.get(index)) {
                Some(word) => (*word).into(),
                None => return Ok(None),
            },
            _ => return Ok(None),
        }))
    }

    /// Returns the link that this process dials.
    fn link(&self, draft: Link, peers: Vec<Upstream>, names: &RecordNames) -> Result<Link, UsageError> {
        let paths = match self.path("paths") {
            Some(file) => LinkPaths::File(file),
            None => LinkPaths::List(self.paths(&peers)?),
        };
        let forwards = if self.command() == Command::Link { self.all_forwards(names)? } else { Vec::new() };
        // On the command line of a front end, `--name` names the listener.
        let own = names.record.as_ref().filter(|_| self.command() == Command::Link);
        let name = own.cloned().unwrap_or_else(|| Link::default_name(&peers));
        Ok(Link { name, peers, paths, forwards, ..draft })
    }

    /// Returns the forwards of `-L`, `-D`, `-H` and `-R`, in the order in which they are announced.
    fn all_forwards(&self, names: &RecordNames) -> Result<Vec<Forward>, UsageError> {
        let relay = |forward: forwards::Forward| {
            let front_end = FrontEndConfig::new("static").with("to", forward.to);
            ("local", forward.listen, Service::Local(front_end))
        };
        let proxy =
            |kind, front_end: FrontEndConfig| move |listen: Bind| (kind, listen, Service::Local(front_end.clone()));
        let all = self.locals()?.into_iter().map(relay);
        let all = all.chain(self.dynamics()?.into_iter().map(proxy("dynamic", self.front_end(&socks::SPEC)?)));
        let all = all.chain(self.https()?.into_iter().map(proxy("http", FrontEndConfig::new("http"))));
        let all = all.chain(self.reverses()?.into_iter().map(|it| ("remote", it.listen, Service::Remote(it.to))));
        let mut kinds = Vec::new();
        let mut named = |(kind, listen, service)| {
            let index = kinds.iter().filter(|other| **other == kind).count();
            kinds.push(kind);
            let name = names.forward(kind, index).cloned().unwrap_or_else(|| numbered(kind, index));
            Forward { name, listen, service }
        };
        Ok(all.map(&mut named).collect())
    }
}

/// Returns the name of a record: the first one of a kind has no number.
fn numbered(kind: &str, index: usize) -> String {
    if index == 0 { kind.to_owned() } else { format!("{kind}-{}", index + 1) }
}

/// The error about an address of a Unix socket where only datagrams are asked for.
pub const UNIX_WITHOUT_DATAGRAMS: &str =
    "a Unix socket takes connections, not datagrams; expected HOST:PORT, or --tcp as well";

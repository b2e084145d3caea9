//! The help of the console: one line for each function. docs/console.md says more.

use mlua::{Error, Function, Lua, Value};

/// Adds the function `help`.
///
/// # Errors
/// There is not enough memory.
pub fn add_to(lua: &Lua) -> mlua::Result<()> {
    let help = lua.create_function(|lua, name: Value| {
        let print: Function = lua.globals().get("print")?;
        let text = match &name {
            Value::Nil => LINES.map(|(usage, text)| format!("{usage:WIDTH$} {text}")).join("\n"),
            Value::String(name) => {
                let name = name.to_string_lossy();
                let found = LINES.iter().filter(|(usage, _)| name_of(usage) == name);
                let lines: Vec<String> = found.map(|(usage, text)| format!("{usage}: {text}")).collect();
                if lines.is_empty() {
                    return Err(Error::runtime(format!("help: no function {name:?}; help() lists all")));
                }
                lines.join("\n")
            }
            other => {
                let found = other.type_name();
                return Err(Error::runtime(format!("help: expected the name of a function in quotes, not {found}")));
            }
        };
        print.call::<()>(text)
    })?;
    lua.globals().set("help", help)
}

/// Returns the name of the function of a usage.
fn name_of(usage: &str) -> &str {
    usage.split(['(', ' ']).next().unwrap_or_default()
}

/// The functions, with their arguments, and what they do.
const LINES: [(&str, &str); 44] = [
    ("connect(host[, port[, local_port]])", "dials a node; the port is 23232 if none is given"),
    ("listen([port[, host]])", "lets the nodes of authorized_keys dial this one"),
    ("trust(tc)", "accepts the key that the dialed node has shown, and dials again"),
    ("allow(\"[OPTIONS] KEY [NAME]\")", "adds a line to authorized_keys, so that a node may dial this one"),
    ("tunnel(tc, local_port, host, port)", "listens here on loopback for a target that the peer reaches"),
    ("rtunnel(tc, host, port, remote_port)", "listens at the peer for a target that this node reaches"),
    ("socks(tc[, port])", "listens here as a SOCKS proxy whose targets the peer reaches"),
    ("udptunnel(tc, local_port, host, port)", "a tunnel of UDP"),
    ("rudptunnel(tc, host, port, remote_port)", "a reverse tunnel of UDP"),
    ("close(obj)", "closes a connection with its tunnels, a listener or a tunnel"),
    ("status(obj)", "returns CONNECTING, CONNECTED, ERROR or CLOSED, and the reason"),
    ("wait(obj[, seconds])", "waits until it works; returns false if it does not"),
    ("sleep(seconds)", "waits"),
    ("on([obj, ]event, f)", "calls f at each event: connected, error, closed, message, offer, file"),
    ("after(seconds, f)", "calls f once"),
    ("every(seconds, f)", "calls f again and again"),
    ("chat(tc, text)", "sends a line to the user of the peer; chat(false) hides their lines"),
    ("send(tc, file, ...)", "sends files and folders, which the peer must accept"),
    ("get(tc, name[, folder])", "gets a file or a folder that the peer shares"),
    ("receive([folder])", "takes offers of peers into a folder"),
    ("share(folder, ...)", "lets peers get what is in these folders"),
    ("accept([folder])", "accepts the oldest offer that waits; refuse() refuses it"),
    ("add_path(tc[, path])", "adds a path to a connection, in the form of --path"),
    ("remove_path(tc[, path])", "removes a path; what is on its way goes over the others"),
    ("list_paths(tc)", "returns the paths of a connection"),
    ("list_connections()", "returns the connections, also those that peers have dialed"),
    ("list_tunnels(tc)", "returns the tunnels of a connection"),
    ("parent(t)", "returns the connection of a tunnel"),
    ("direction(t)", "returns forward or reverse"),
    ("local_host(obj)", "returns the host of the end here"),
    ("local_port(obj)", "returns the port of the end here"),
    ("remote_host(obj)", "returns the host of the other end"),
    ("remote_port(obj)", "returns the port of the other end"),
    ("fingerprint(tc)", "returns the fingerprint of the key of the peer"),
    ("cipher(tc)", "returns the cipher"),
    ("stats([obj])", "returns the counts of an object, or of all"),
    ("name(obj[, new])", "returns or sets the name of an object"),
    ("connection(name)", "returns the connection with a name; tunnel(name) likewise"),
    ("names()", "returns the saved names"),
    ("forget(name)", "gives a saved name up"),
    ("myip([tc][, family])", "returns the address and the port at which a peer sees this node"),
    ("print(...)", "prints; an object with both ends and its state"),
    ("help([name])", "prints this list, or one line of it"),
    ("quit()", "leaves in order, as Ctrl-D does"),
];
/// The width of the column of usages.
const WIDTH: usize = 40;

#[cfg(test)]
mod tests {
    use mlua::Table;

    use super::super::objects::methods;
    use super::*;

    #[test]
    fn each_function_of_the_console_has_a_line() {
        let names: Vec<&str> = LINES.iter().map(|(usage, _)| name_of(usage)).collect();
        let missing: Vec<&str> = methods().filter(|name| !names.contains(name)).collect();
        assert!(missing.is_empty(), "{missing:?}");
    }

    #[test]
    fn one_name_has_its_line_and_an_unknown_one_an_error() {
        let lua = Lua::new();
        add_to(&lua).unwrap();
        lua.load("out = {} function print(text) out[#out + 1] = text end help() help('wait')").exec().unwrap();
        let out: Table = lua.globals().get("out").unwrap();
        let (all, one): (String, String) = (out.get(1).unwrap(), out.get(2).unwrap());
        assert_eq!((all.lines().count(), one.starts_with("wait(obj[, seconds]): ")), (LINES.len(), true));
        let error = lua.load("help('waits')").exec().unwrap_err().to_string();
        assert!(error.contains("no function \"waits\""), "{error}");
    }
}

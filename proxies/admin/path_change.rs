//! Changes of the list of paths of a link, as a user asks for them while the link is up.
//!
//! The list in the configuration in effect is the one place of the paths, so that each link of a group has the same ones, and one
//! that is dialed later has them, too. The paths of a file are the file's: nothing here changes them.

use seaprox::config::LinkPaths;
use seaprox::node::Path;

/// A question about the paths of a link. The answer is the list of its paths afterwards.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PathChange<P> {
    /// Only list the paths.
    List,
    /// Add a path.
    Add(P),
    /// Remove a path.
    Remove(P),
}

impl<P> PathChange<P> {
    /// Returns the same change of another form of the path.
    ///
    /// # Errors
    /// Fails if `form` does.
    pub fn try_map<Q, E>(self, form: impl FnOnce(P) -> Result<Q, E>) -> Result<PathChange<Q>, E> {
        Ok(match self {
            PathChange::List => PathChange::List,
            PathChange::Add(path) => PathChange::Add(form(path)?),
            PathChange::Remove(path) => PathChange::Remove(form(path)?),
        })
    }
}

impl PathChange<Path> {
    /// Returns the paths of a link after the change.
    ///
    /// # Errors
    /// The link has the path already, or does not have it, or has no other one, or its paths stand in a file.
    pub fn of(self, paths: &LinkPaths) -> Result<Vec<Path>, String> {
        let mut paths = match paths {
            LinkPaths::List(paths) => paths.clone(),
            LinkPaths::File(file) => {
                return Err(format!("the paths stand in {}, which is to be changed", file.display()));
            }
        };
        match self {
            PathChange::List => {}
            PathChange::Add(path) if paths.contains(&path) => {
                return Err(format!("the link has the path {}", named(&path)));
            }
            PathChange::Add(path) => paths.push(path),
            PathChange::Remove(path) if !paths.contains(&path) => {
                let all: Vec<String> = paths.iter().map(named).collect();
                return Err(format!("no path {}: expected one of {}", named(&path), all.join(", ")));
            }
            PathChange::Remove(path) if paths.len() == 1 => {
                return Err(format!("{} is the last path: add another one first, or close the link", named(&path)));
            }
            PathChange::Remove(path) => paths.retain(|it| *it != path),
        }
        Ok(paths)
    }
}

/// Returns a path in quotes, as the argument that names it.
fn named(path: &Path) -> String {
    format!("{:?}", path.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use seaprox::node::CarrierKind;

    #[test]
    fn a_list_of_paths_keeps_one_and_has_each_once() {
        let path = |text: &str| match text.split_once('%') {
            Some((carrier, name)) => Path {
                carrier: CarrierKind::parse(carrier.trim_end_matches(':')),
                interface: Some(name.to_owned()),
                ..Path::default()
            },
            None => Path::default(),
        };
        let list = |texts: &[&str]| LinkPaths::List(texts.iter().map(|text| path(text)).collect());
        let after = |paths: &LinkPaths, change: PathChange<Path>| {
            change.of(paths).map(|paths| paths.iter().map(Path::to_string).collect::<Vec<_>>())
        };
        let one = list(&["%wlan0"]);
        assert_eq!(after(&one, PathChange::List).unwrap(), ["%wlan0"]);
        assert_eq!(after(&one, PathChange::Add(path("quic:%eth0"))).unwrap(), ["%wlan0", "quic:%eth0"]);
        assert_eq!(after(&one, PathChange::Add(path(""))).unwrap(), ["%wlan0", ""]);
        assert_eq!(after(&list(&["%wlan0", "tcp:%eth0"]), PathChange::Remove(path("%wlan0"))).unwrap(), ["tcp:%eth0"]);
        for (paths, change, text) in [
            (&one, PathChange::Add(path("%wlan0")), "the link has the path \"%wlan0\""),
            (&one, PathChange::Remove(path("%eth0")), "no path \"%eth0\": expected one of \"%wlan0\""),
            (&one, PathChange::Remove(path("%wlan0")), "\"%wlan0\" is the last path: "),
            (&LinkPaths::File("/run/uplinks".into()), PathChange::List, "the paths stand in /run/uplinks, "),
        ] {
            let error = after(paths, change).unwrap_err();
            assert!(error.starts_with(text), "{error}");
        }
    }
}

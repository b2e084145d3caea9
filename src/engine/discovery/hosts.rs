//! The file of hosts of this system (hosts(5)): its entries win over DNS.

use std::net::IpAddr;
use std::path::Path;

use crate::types::address::Name;

/// Returns the addresses that the file of hosts has for a name; none if the name or the file is missing.
pub(super) fn addresses(name: &Name) -> Vec<IpAddr> {
    // A file that is larger than any file of hosts is not read.
    let path = Path::new(FILE);
    let is_fit = std::fs::metadata(path).is_ok_and(|file| file.len() <= FILE_BYTES_MAX);
    match is_fit.then(|| std::fs::read_to_string(path)) {
        Some(Ok(text)) => find(&text, name.as_str()),
        _ => Vec::new(),
    }
}

fn find(text: &str, name: &str) -> Vec<IpAddr> {
    let mut found = Vec::new();
    for line in text.lines() {
        let entry = line.split('#').next().unwrap_or_default();
        let mut words = entry.split_ascii_whitespace();
        let Some(Ok(address)) = words.next().map(str::parse::<IpAddr>) else { continue };
        let is_named = words.any(|word| word.trim_end_matches('.').eq_ignore_ascii_case(name));
        if is_named && !found.contains(&address) {
            found.push(address);
        }
    }
    found
}

#[cfg(windows)]
const FILE: &str = r"C:\Windows\System32\drivers\etc\hosts";
#[cfg(not(windows))]
const FILE: &str = "/etc/hosts";
const FILE_BYTES_MAX: u64 = 16 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_lines_of_a_name_count_whatever_its_case_and_comments_do_not() {
        let text =
            "127.0.0.1 localhost\n10.0.0.1\tweb.example  Web # db\n::5 WEB\n10.0.0.9 db # web\n# 10.0.0.8 web\nx web\n";
        let shown = |name: &str| find(text, name).iter().map(IpAddr::to_string).collect::<Vec<_>>().join(" ");
        assert_eq!(shown("web"), "10.0.0.1 ::5");
        assert_eq!(shown("web.example"), "10.0.0.1");
        assert_eq!(shown("db"), "10.0.0.9");
        assert_eq!(shown("none"), "");
    }
}

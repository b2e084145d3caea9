//! docs/requirements.md says which test shows which requirement. These tests read the page and the sources, so that neither
//! of them goes stale.

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

const PAGE: &str = include_str!("../../docs/requirements.md");
const MAKEFILE: &str = include_str!("../../Makefile");

fn top() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// Returns the text of every Rust file in a folder.
fn sources(folder: &Path) -> Vec<String> {
    let mut texts = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            texts.extend(sources(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            texts.push(fs::read_to_string(&path).unwrap());
        }
    }
    texts
}

/// Returns the cells of each row that begins with an id.
fn rows() -> Vec<Vec<&'static str>> {
    let cells = |line: &'static str| line.trim_matches('|').split(" | ").map(str::trim).collect();
    PAGE.lines().filter(|line| line.starts_with("| ") && is_id(line.split(' ').nth(1).unwrap())).map(cells).collect()
}

/// Returns true for the likes of `BS-01` and `X-17`.
fn is_id(word: &str) -> bool {
    ["BS-", "TT-", "TS-", "SP-", "TN-", "X-"].iter().any(|prefix| {
        let number = word.strip_prefix(prefix).map(|rest| rest.trim_start_matches('H'));
        number.is_some_and(|number| !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit()))
    })
}

/// Returns the names of all test functions, and of the gates in `benches/gates/table.rs`.
fn tests() -> HashSet<String> {
    let mut names = HashSet::new();
    let gates = fs::read_to_string(top().join("benches/gates/table.rs")).unwrap();
    for (_, rest) in gates.lines().filter_map(|line| line.trim().split_once("name: \"")) {
        names.insert(rest.split('"').next().unwrap().to_owned());
    }
    let folders = ["src", "proxies", "capi", "tests"];
    for text in folders.iter().flat_map(|folder| sources(&top().join(folder))) {
        let mut is_test = false;
        for line in text.lines().map(str::trim) {
            if line == "#[test]" {
                is_test = true;
            } else if let Some(rest) = line.strip_prefix("fn ") {
                let name: String = rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
                if std::mem::take(&mut is_test) {
                    names.insert(name);
                }
            }
        }
    }
    names
}

#[test]
fn every_test_that_the_page_of_requirements_names_exists() {
    let (rows, tests) = (rows(), tests());
    assert!(rows.len() > 100, "the rows were not found");
    let mut missing = Vec::new();
    for row in &rows {
        let shown_by: Vec<&str> = row.last().unwrap().split('`').skip(1).step_by(2).collect();
        assert!(!shown_by.is_empty(), "{} names no test", row[0]);
        for name in shown_by {
            let exists = match name.strip_prefix("make ") {
                Some(target) => MAKEFILE.lines().any(|line| line.starts_with(&format!("{target}:"))),
                None => tests.contains(name),
            };
            if !exists {
                missing.push(format!("{}: {name}", row[0]));
            }
        }
    }
    assert!(missing.is_empty(), "docs/requirements.md names tests that do not exist:\n{}", missing.join("\n"));
}

#[test]
fn every_id_of_a_requirement_stands_once_in_the_page() {
    let mut listed = HashSet::new();
    for row in rows() {
        assert!(listed.insert(row[0]), "{} stands there twice", row[0]);
    }
    let folders = ["src", "proxies", "tests", "benches", "examples"];
    let mut unknown = HashSet::new();
    for text in folders.iter().flat_map(|folder| sources(&top().join(folder))) {
        let comments = text.lines().filter_map(|line| line.split_once("//").map(|(_, comment)| comment));
        for word in comments.flat_map(|comment| comment.split(|c: char| !c.is_alphanumeric() && c != '-')) {
            if is_id(word) && !listed.contains(word) {
                unknown.insert(word.to_owned());
            }
        }
    }
    assert!(unknown.is_empty(), "docs/requirements.md does not have {unknown:?}");
}

/// The list of the layers, and of what each may import, stands in the script and in docs/architecture.md.
#[test]
fn imports_run_one_way_between_the_layers() {
    let ran = Command::new(top().join("scripts/check-layers")).output().unwrap();
    assert!(ran.status.success(), "{}{}", String::from_utf8_lossy(&ran.stdout), String::from_utf8_lossy(&ran.stderr));
}

/// Returns the paths of the repository that a line names, such as `docs/links.md`.
fn paths_in(line: &str) -> impl Iterator<Item = &str> {
    let folders = ["src/", "proxies/", "tests/", "benches/", "examples/", "scripts/", "docs/"];
    let words = line.split(|c: char| !(c.is_ascii_alphanumeric() || "_-./".contains(c)));
    words.map(|word| word.trim_end_matches('.')).filter(move |word| {
        folders
            .iter()
            .any(|folder| word.strip_prefix(folder).is_some_and(|rest| !rest.is_empty() && !rest.contains("NAME")))
    })
}

#[test]
fn every_path_and_every_make_target_that_the_documents_name_exists() {
    let page = |name: &str| (name.to_owned(), fs::read_to_string(top().join(name)).unwrap());
    let mut texts = vec![page("README.md"), page("CONTRIBUTING.md"), page("Makefile")];
    for entry in fs::read_dir(top().join("docs")).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        texts.extend(name.ends_with(".md").then(|| page(&format!("docs/{name}"))));
    }
    for folder in ["src", "proxies", "tests", "benches", "examples"] {
        for text in sources(&top().join(folder)) {
            let comments = text.lines().filter(|line| line.trim_start().starts_with("//"));
            texts.push((folder.to_owned(), comments.collect::<Vec<_>>().join("\n")));
        }
    }
    let mut missing = Vec::new();
    for (place, text) in &texts {
        for line in text.lines() {
            let is_there = |path: &str| top().join(path).exists() || top().join(format!("{path}.rs")).exists();
            missing.extend(paths_in(line).filter(|path| !is_there(path)).map(|path| format!("{place}: {path}")));
            let targets = line.split("`make ").skip(1).map(|rest| rest.split(['`', ' ']).next().unwrap());
            let has = |target: &str| MAKEFILE.lines().any(|line| line.starts_with(&format!("{target}:")));
            missing.extend(targets.filter(|target| !has(target)).map(|target| format!("{place}: make {target}")));
        }
    }
    assert!(missing.is_empty(), "these do not exist:\n{}", missing.join("\n"));
}

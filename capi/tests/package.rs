//! The installed files: the header, the symbols, the pkg-config file, and the agreement of header and code.

use std::fs;
use std::io::{Read, Write};
use std::process::Command;

use crate::kit::{Program, STRICT, capitals, compile_static, connect, has, prefix, succeed, top};

#[test]
fn the_header_compiles_alone_as_c11_and_as_cpp17() {
    compile_header("gcc", "g++");
}

#[test]
#[ignore = "`make test-system` installs clang, and runs this"]
fn the_header_and_the_examples_compile_with_clang() {
    assert!(has("clang"), "scripts/install-system-tools installs it");
    compile_header("clang", "clang++");
    for entry in fs::read_dir(top().join("capi/examples")).unwrap() {
        let mut command = Command::new("clang");
        command.args(STRICT).args(["-fsyntax-only", "-std=gnu11", "-I"]).arg(prefix().join("include"));
        succeed(command.arg(entry.unwrap().path()));
    }
}

fn compile_header(c: &str, cpp: &str) {
    for (compiler, language, standard) in [(c, "c", "c11"), (cpp, "c++", "c++17")] {
        if has(compiler) {
            let mut command = Command::new(compiler);
            command.args(STRICT).args(["-fsyntax-only", "-x", language, &format!("-std={standard}")]);
            succeed(command.arg(prefix().join("include/seaprox.h")));
        }
    }
}

#[test]
fn the_library_has_a_soname_and_exports_the_functions_of_the_header_alone() {
    let library = prefix().join("lib/libseaprox.so");
    let dynamic = succeed(Command::new("readelf").arg("-d").arg(&library));
    assert!(dynamic.contains("soname: [libseaprox.so.0]"), "{dynamic}");
    let needed = dynamic.lines().filter(|line| line.contains("(NEEDED)"));
    let of_system = ["[libgcc_s.so", "[libc.so", "[libm.so", "[ld-linux"];
    let other: Vec<_> = needed.filter(|line| !of_system.iter().any(|name| line.contains(name))).collect();
    assert!(other.is_empty(), "{other:?}");
    let symbols = succeed(Command::new("nm").args(["-D", "--defined-only", "--with-symbol-versions"]).arg(&library));
    let foreign: Vec<_> =
        symbols.lines().filter(|line| !line.ends_with("@@SEAPROX_0") && !line.ends_with(" A SEAPROX_0")).collect();
    assert!(foreign.is_empty(), "{foreign:?}");
}

#[test]
fn a_program_carries_the_library_along_if_it_is_linked_statically() {
    for is_whole in [false, true] {
        let program = compile_static("static", is_whole);
        let needed = succeed(Command::new("readelf").arg("-d").arg(&program));
        assert!(!needed.contains("libseaprox") && needed.contains("NEEDED") != is_whole, "{needed}");
        let mut proxy = Program::start(&program, &["127.0.0.1:0", &capitals()]);
        let mut client = connect(proxy.port());
        client.write_all(b"words").unwrap();
        let mut answer = [0; 5];
        client.read_exact(&mut answer).unwrap();
        assert_eq!(&answer, b"WORDS");
    }
}

#[test]
fn header_code_version_script_and_dump_of_the_c_interface_agree() {
    let check = succeed(Command::new(top().join("scripts/check-capi")).arg(prefix().join("lib/libseaprox.so")));
    assert!(check.contains("the C interface agrees"), "{check}");
}

//! `seaprox keygen` and `seaprox pubkey` as processes: their output, their files, and their errors.

use crate::kit;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use kit::{Ran, Scratch, has, run, run_with};

/// The key of RFC 8032, section 7.1, test 1: PEM, line and fingerprint as OpenSSL 3.0 prints them.
const PEM: &str = "-----BEGIN PRIVATE KEY-----\n\
                   MC4CAQAwBQYDK2VwBCIEIJ1hsZ3v/VpguoRK9JLsLMREScVpezJpGXA7rAMcrn9g\n\
                   -----END PRIVATE KEY-----\n";
const LINE: &str = "seaprox-ed25519 11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=\n";
const FINGERPRINT: &str = "SHA256:BuP9j9opu2CrWVV95h7bCuzbIxE0vjDnW0Vfjht5L6k\n";

fn out(ran: &Ran) -> &str {
    assert_eq!(ran.code, Some(0), "{}", ran.err);
    std::str::from_utf8(&ran.out).unwrap()
}

fn mode(path: &str) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

fn write(scratch: &Scratch, name: &str, content: &str, mode: u32) -> String {
    let path = scratch.write(name, content);
    fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
    path
}

#[test]
fn keygen_makes_a_key_once_and_replaces_it_only_with_force() {
    let scratch = Scratch::new();
    let directory = scratch.file("config/seaprox");
    let key = format!("{directory}/key");
    let made = run(&["keygen", "--config-dir", &directory]);
    let line = out(&made).to_owned();
    assert!(line.starts_with("seaprox-ed25519 ") && line.lines().count() == 1, "{line}");
    assert_eq!(made.err, format!("seaprox keygen: the key is in {key}\n"));
    assert_eq!((mode(&key), mode(&directory)), (0o600, 0o700));
    assert_eq!(out(&run(&["pubkey", "--config-dir", &directory])), line);

    let content = fs::read(&key).unwrap();
    let again = run(&["keygen", "--config-dir", &directory]);
    assert_eq!((again.code, again.out.len()), (Some(1), 0));
    let refusal = format!("seaprox keygen: {key}: the file exists already and is not replaced; --force replaces it\n");
    assert_eq!(again.err, refusal);
    assert_eq!(fs::read(&key).unwrap(), content);

    let forced = run(&["keygen", "--config-dir", &directory, "--force", "-q"]);
    assert_ne!(out(&forced), line);
    assert_eq!((forced.err.as_str(), mode(&key)), ("", 0o600));
    assert_eq!(fs::read_dir(&directory).unwrap().count(), 1, "no other file is left");
}

#[test]
fn the_configuration_directory_follows_the_environment() {
    let scratch = Scratch::new();
    let (ours, xdg, home) = (scratch.file("ours"), scratch.file("xdg"), scratch.file("home"));
    for (ours, xdg, key) in [
        (ours.as_str(), xdg.as_str(), format!("{ours}/key")),
        ("", &xdg, format!("{xdg}/seaprox/key")),
        ("", "", format!("{home}/.config/seaprox/key")),
    ] {
        let touch = |command: &mut Command| {
            _ = command.env("SEAPROX_CONFIG_DIR", ours).env("XDG_CONFIG_HOME", xdg).env("HOME", &home)
        };
        let made = run_with(&["keygen"], b"", touch);
        assert_eq!((made.code, made.err), (Some(0), format!("seaprox keygen: the key is in {key}\n")));
    }
}

#[test]
fn a_key_of_openssl_has_the_fingerprint_that_openssl_computes() {
    let scratch = Scratch::new();
    let key = write(&scratch, "key", PEM, 0o600);
    assert_eq!(out(&run(&["pubkey", &key])), LINE);
    assert_eq!(out(&run(&["pubkey", "--fingerprint", &key])), format!("{LINE}{FINGERPRINT}"));
    assert_eq!(out(&run(&["pubkey", "--key", &key])), LINE);
    assert_eq!(out(&run_with(&["pubkey"], b"", |command| _ = command.env("SEAPROX_KEY", &key))), LINE);
    if !has("openssl") {
        return;
    }
    let (theirs, ours) = (scratch.file("theirs"), scratch.file("ours"));
    let shell = |line: String| {
        let output = Command::new("sh").args(["-c", &line]).output().unwrap();
        assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    shell(format!("umask 077; openssl genpkey -algorithm ed25519 -out {theirs}"));
    out(&run(&["keygen", "--key", &ours]));
    for key in [theirs, ours] {
        let der = format!("openssl pkey -in {key} -pubout -outform DER");
        let line = format!("seaprox-ed25519 {}", shell(format!("{der} | tail -c 32 | openssl base64")));
        let digest = shell(format!("{der} | openssl dgst -sha256 -binary | openssl base64"));
        let fingerprint = format!("SHA256:{}\n", digest.trim_end().trim_end_matches('='));
        assert_eq!(out(&run(&["pubkey", "--fingerprint", &key])), format!("{line}{fingerprint}"));
    }
}

#[test]
fn a_secret_gives_both_nodes_the_same_key() {
    let scratch = Scratch::new();
    let secret = scratch.file("shared");
    let made = run(&["keygen", "--secret", "--key", &secret]);
    let line = out(&made).to_owned();
    assert_eq!((mode(&secret), fs::read(&secret).unwrap().len()), (0o600, 45));
    let copy = write(&scratch, "copy", fs::read_to_string(&secret).unwrap().trim_end(), 0o400);
    assert_eq!(out(&run(&["pubkey", "--secret", &copy])), line, "with or without a newline");
    assert!(!made.err.contains(fs::read_to_string(&secret).unwrap().trim_end()), "the secret is not printed");
    assert_eq!(run(&["keygen", "--secret", "--key", &secret]).code, Some(1));
    let directory = scratch.file("config");
    let made = run_with(&["keygen", "--secret", "--config-dir", &directory], b"", |command| {
        // This is the path of the node's key. The secret must not be written there.
        _ = command.env("SEAPROX_KEY", scratch.file("node"))
    });
    assert!(!std::path::Path::new(&scratch.file("node")).exists());
    assert_eq!(out(&run(&["pubkey", "--secret", "--config-dir", &directory])), out(&made));
    assert_eq!(made.err, format!("seaprox keygen: the secret is in {directory}/secret\n"));
}

#[test]
fn an_unusable_key_file_is_named_and_never_quoted() {
    let scratch = Scratch::new();
    let open = write(&scratch, "open", PEM, 0o640);
    let (junk, short) = (write(&scratch, "junk", "precious\n", 0o600), write(&scratch, "short", "precious\n", 0o600));
    let (missing, nowhere) = (scratch.file("missing"), scratch.file("no/such/key"));
    for (args, code, said) in [
        (
            vec!["pubkey", &open],
            78,
            format!("{open}: others can read it (mode 0640): expected mode 0600; type: chmod 600 {open}"),
        ),
        (vec!["pubkey", &junk], 78, format!("{junk}: expected a private key in PEM")),
        (vec!["pubkey", "--secret", &short], 78, format!("{short}: expected a secret of at least 16 bytes")),
        (vec!["pubkey", "--secret", &open], 78, "chmod 600".to_owned()),
        (vec!["pubkey", &missing], 78, "(os error 2); `seaprox keygen` makes one".to_owned()),
        (vec!["pubkey", &junk, "--key", &junk], 2, "expected either FILE or --key FILE".to_owned()),
        (vec!["pubkey", &junk, &junk], 2, "unexpected argument".to_owned()),
        (vec!["pubkey", "--force"], 2, "--force is an option of keygen, not of pubkey".to_owned()),
        (vec!["keygen", "file"], 2, "unexpected argument \"file\"".to_owned()),
        (vec!["keygen", "--key", &nowhere], 1, format!("{nowhere}: No such file")),
    ] {
        let ran = run(&args);
        assert_eq!((ran.code, ran.out.len()), (Some(code), 0), "{args:?}: {}", ran.err);
        assert!(ran.err.contains(&said) && ran.err.lines().count() == 1, "{args:?}: {}", ran.err);
        assert!(!ran.err.contains("precious") && !ran.err.contains("MC4C"), "{}", ran.err);
    }
}

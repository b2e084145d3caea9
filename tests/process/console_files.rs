//! Files at the console (TN-47): two consoles send, offer, accept and get.

use crate::console::{execute, left, secret, start};
use crate::kit::Scratch;

/// A listening console whose answer to offers is `answer`.
fn receiver(secret: &str, answer: &str, folder: &str) -> (crate::kit::program::Program, String) {
    let code = format!(
        "receive('{folder}') {answer}
        on('file', function(tc, name, what, detail) print(name, what) end)
        l = listen(0, '127.0.0.1') wait(l, 60) print(l:local_port())
        on('closed', function(it) if it ~= l then quit() end end)"
    );
    let mut console = start(&["--secret", secret, "-e", &code]);
    let port = console.first_line();
    (console, port)
}

#[test]
fn a_script_accepts_some_files_and_refuses_others() {
    let scratch = Scratch::new();
    let secret = secret(&scratch);
    let folder = scratch.file("in");
    std::fs::create_dir(&folder).unwrap();
    let film: Vec<u8> = (0..3_000_000_u32).map(|at| (at ^ (at >> 9)) as u8).collect();
    let (film_file, other) = (scratch.write("film.mkv", &film), scratch.write("other.exe", "no"));
    let answer = "on('offer', function(tc, name, bytes, is_folder) sleep(0.01)
        return name == 'film.mkv' and bytes == 3000000 and not is_folder end)";
    let (mut receiver, port) = receiver(&secret, answer, &folder);
    let code = format!(
        "n = 0
        on('file', function(tc, name, what, detail) print(name, what, detail) n = n + 1 end)
        tc = connect('127.0.0.1', {port}) assert(wait(tc, 60), tostring(tc))
        tc:send('{film_file}') while n < 1 do sleep(0.01) end
        send(tc, '{other}') while n < 2 do sleep(0.01) end
        print(pcall(send, tc)) quit()"
    );
    let ran = execute(&code, &secret);
    assert_eq!(ran.code, Some(0), "{}", ran.err);
    let shown = String::from_utf8_lossy(&ran.out).into_owned();
    assert!(shown.contains("film.mkv: sent (3.00 MB)"), "{shown}");
    assert!(shown.contains("film.mkv\tsent\tnil"), "{shown}");
    assert!(shown.contains("other.exe\tfailed\t") && shown.contains("the user does not want it"), "{shown}");
    assert!(shown.contains("file: expected a path, not nil"), "{shown}");
    assert!(left(&mut receiver).success());
    assert_eq!(std::fs::read(format!("{folder}/film.mkv")).unwrap(), film);
    assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 1);
    assert!(receiver.rest().contains("film.mkv\treceived"));
}

#[test]
fn an_offer_waits_for_the_answer_of_the_user() {
    let scratch = Scratch::new();
    let secret = secret(&scratch);
    let (folder, film) = (scratch.file("in"), scratch.write("film.mkv", "pictures"));
    std::fs::create_dir(&folder).unwrap();
    // The loop stands for a user who types.
    let answer = "every(0.05, function() if pcall(accept) then print('accepted') end end)";
    let (mut receiver, port) = receiver(&secret, answer, &folder);
    let code = format!(
        "on('file', function(tc, name, what) print(what) quit() end)
        tc = connect('127.0.0.1', {port}) assert(wait(tc, 60), tostring(tc)) tc:send('{film}')"
    );
    let ran = execute(&code, &secret);
    assert_eq!(ran.code, Some(0), "{}", ran.err);
    assert!(left(&mut receiver).success());
    let shown = receiver.rest();
    assert!(shown.contains("offers \"film.mkv\" (8 B): accept() or refuse()"), "{shown}");
    assert_eq!(std::fs::read_to_string(format!("{folder}/film.mkv")).unwrap(), "pictures");
}

#[test]
fn a_file_of_a_shared_folder_is_fetched_and_no_other_one() {
    let scratch = Scratch::new();
    let secret = secret(&scratch);
    let (shared, into) = (scratch.file("shared"), scratch.file("into"));
    std::fs::create_dir(&shared).unwrap();
    std::fs::create_dir(&into).unwrap();
    std::fs::write(format!("{shared}/song.ogg"), "la la").unwrap();
    scratch.write("private", "no");
    let (mut sharing, port) = receiver(&secret, &format!("share('{shared}')"), &into);
    let code = format!(
        "n = 0
        on('file', function(tc, name, what, detail) print(name, what) n = n + 1 end)
        tc = connect('127.0.0.1', {port}) assert(wait(tc, 60), tostring(tc))
        tc:get('song.ogg', '{into}') while n < 1 do sleep(0.01) end
        get(tc, '../private', '{into}') while n < 2 do sleep(0.01) end
        quit()"
    );
    let ran = execute(&code, &secret);
    assert_eq!(ran.code, Some(0), "{}", ran.err);
    let shown = String::from_utf8_lossy(&ran.out).into_owned();
    assert!(shown.contains("song.ogg\treceived") && shown.contains("../private\tfailed"), "{shown}");
    assert!(left(&mut sharing).success());
    assert_eq!(std::fs::read_to_string(format!("{into}/song.ogg")).unwrap(), "la la");
    assert_eq!(std::fs::read_dir(&into).unwrap().count(), 1);
}

//! Unit and property tests of [`super`], byte for byte.

use super::*;
use proptest::prelude::*;

const GREETING: &[u8] = &[5, 2, 0, 2];
const AUTH: &[u8] = b"\x01\x03joe\x06secret";
const CONNECT_V4: &[u8] = &[5, 1, 0, 1, 10, 0, 0, 1, 0, 22];
const CONNECT_V6: &[u8] = &[5, 1, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 187];
const CONNECT_NAME: &[u8] = b"\x05\x01\x00\x03\x0bexample.org\x00\x50";
const SOCKS4_IP: &[u8] = b"\x04\x01\x00\x50\x0a\x00\x00\x01joe\x00";
const SOCKS4A_NAME: &[u8] = b"\x04\x01\x00\x50\x00\x00\x00\x01joe\x00example.org\x00";

fn target(text: &str) -> Result<Target, BadTarget> {
    Ok(Target::parse(text).unwrap())
}

fn request5(bytes: &[u8]) -> (Request5, usize) {
    parse_request5(bytes).unwrap().unwrap()
}

fn request4(bytes: &[u8]) -> (Request4<'_>, usize) {
    parse_request4(bytes).unwrap().unwrap()
}

/// Returns a SOCKS5 CONNECT to a name and a port.
fn connect_name(name: &[u8], port: u16) -> Vec<u8> {
    let mut bytes = vec![5, 1, 0, 3, name.len() as u8];
    bytes.extend_from_slice(name);
    bytes.extend_from_slice(&port.to_be_bytes());
    bytes
}

/// Checks that each prefix is incomplete, that the message is parsed, and that bytes behind it are not consumed.
fn check_splits<T: PartialEq + fmt::Debug>(
    whole: &'static [u8],
    parse: impl Fn(&'static [u8]) -> Result<Option<(T, usize)>, SocksError>,
) {
    for len in 0..whole.len() {
        assert_eq!(parse(&whole[..len]), Ok(None), "{len} bytes");
    }
    let (message, consumed) = parse(whole).unwrap().unwrap();
    assert_eq!(consumed, whole.len());
    let pipelined = [whole, b"\x05\x01\x00GET"].concat().leak();
    assert_eq!(parse(pipelined), Ok(Some((message, whole.len()))));
}

#[test]
fn a_message_may_be_split_at_each_byte_and_bytes_behind_it_are_not_consumed() {
    check_splits(GREETING, parse_greeting5);
    check_splits(AUTH, parse_auth);
    for whole in [CONNECT_V4, CONNECT_V6, CONNECT_NAME] {
        check_splits(whole, parse_request5);
    }
    for whole in [SOCKS4_IP, SOCKS4A_NAME] {
        check_splits(whole, parse_request4);
    }
}

#[test]
fn the_first_byte_is_the_version() {
    assert_eq!(Version::detect(4), Some(Version::Four));
    assert_eq!(Version::detect(5), Some(Version::Five));
    assert_eq!(Version::detect(b'G'), None);
    assert_eq!(parse_greeting5(b"G"), Err(SocksError::Version(b'G')));
    assert_eq!(parse_auth(&[5]), Err(SocksError::Version(5)));
    assert_eq!(parse_request5(&[4]), Err(SocksError::Version(4)));
    assert_eq!(parse_request4(&[5]), Err(SocksError::Version(5)));
}

#[test]
fn the_methods_of_a_greeting_are_parsed() {
    let methods = |bytes: &[u8]| parse_greeting5(bytes).unwrap().unwrap().0;
    assert_eq!(methods(GREETING), Methods { no_auth: true, user_pass: true });
    assert_eq!(methods(&[5, 3, 1, 0x80, 2]), Methods { no_auth: false, user_pass: true });
    assert_eq!(methods(&[5, 1, 0]), Methods { no_auth: true, user_pass: false });
    assert_eq!(methods(&[5, 0]), Methods::default());
    assert_eq!(method_reply(Method::NoAuth), [5, 0]);
    assert_eq!(method_reply(Method::UserPass), [5, 2]);
    assert_eq!(method_reply(Method::NoneAcceptable), [5, 0xff]);
}

#[test]
fn user_and_password_may_be_any_bytes() {
    let (auth, consumed) = parse_auth(AUTH).unwrap().unwrap();
    assert_eq!((auth.user, auth.password, consumed), (&b"joe"[..], &b"secret"[..], AUTH.len()));
    assert_eq!(parse_auth(&[1, 0, 0]), Ok(Some((Auth { user: b"", password: b"" }, 3))));
    assert_eq!((auth_reply(true), auth_reply(false)), ([1, 0], [1, 1]));
    assert!(!format!("{auth:?}").contains("secret"));
}

#[test]
fn the_targets_of_socks5_requests_are_parsed() {
    assert_eq!(request5(CONNECT_V4), (Request5 { command: Command::Connect, target: target("10.0.0.1:22") }, 10));
    assert_eq!(request5(CONNECT_V6), (Request5 { command: Command::Connect, target: target("[::1]:443") }, 22));
    assert_eq!(request5(CONNECT_NAME), (Request5 { command: Command::Connect, target: target("example.org:80") }, 18));
    for (literal, as_text) in [("10.0.0.1", "10.0.0.1:7"), ("::1", "[::1]:7"), ("[::1]", "[::1]:7")] {
        assert_eq!(request5(&connect_name(literal.as_bytes(), 7)).0.target, target(as_text));
    }
}

#[test]
fn the_commands_of_socks5_requests_are_parsed() {
    let command = |code: u8| request5(&[5, code, 0, 1, 0, 0, 0, 0, 0, 1]).0.command;
    assert_eq!([1, 2, 3, 0].map(command), [Command::Connect, Command::Bind, Command::UdpAssociate, Command::Other(0)]);
}

#[test]
fn each_bad_target_has_its_reply_code() {
    let (request, consumed) = request5(&[5, 1, 0, 2, 9, 9, 9]);
    assert_eq!((request.target, consumed), (Err(BadTarget::AddressType), 7));
    for name in [&b""[..], b"a b", b"a\0b", b"\xff", b"a\nb", &[b'a'; 255]] {
        let bytes = connect_name(name, 80);
        let (request, consumed) = request5(&bytes);
        assert_eq!((request.target, consumed), (Err(BadTarget::Name), bytes.len()));
    }
    assert_eq!(request5(&connect_name(b"host", 0)).0.target, Err(BadTarget::Port));
    assert_eq!(request5(&[5, 1, 0, 1, 1, 2, 3, 4, 0, 0]).0.target, Err(BadTarget::Port));
    assert!(request5(&[5, 3, 0, 1, 0, 0, 0, 0, 0, 0]).0.target.is_ok());
    let codes = [BadTarget::AddressType, BadTarget::Name, BadTarget::Port].map(|bad| bad.reply5() as u8);
    assert_eq!(codes, [8, 4, 1]);
}

#[test]
fn socks4_and_socks4a_requests_are_parsed() {
    let request = Request4 { command: Command::Connect, target: target("10.0.0.1:80"), user: b"joe" };
    assert_eq!(request4(SOCKS4_IP), (request.clone(), SOCKS4_IP.len()));
    let named = Request4 { target: target("example.org:80"), ..request };
    assert_eq!(request4(SOCKS4A_NAME), (named, SOCKS4A_NAME.len()));
    assert_eq!(request4(b"\x04\x02\x00\x50\x00\x00\x00\x00\x00").0.target, target("0.0.0.0:80"));
    assert_eq!(request4(b"\x04\x01\x00\x50\x00\x00\x00\x01\x00\x00").0.target, Err(BadTarget::Name));
    assert_eq!(request4(b"\x04\x01\x00\x50\x00\x00\x00\x01\x0010.0.0.1\x00").0.target, target("10.0.0.1:80"));
    assert_eq!(request4(b"\x04\x01\x00\x00\x01\x02\x03\x04\x00").0.target, Err(BadTarget::Port));
}

#[test]
fn a_socks4_text_that_is_too_long_is_refused() {
    let head = b"\x04\x01\x00\x50\x00\x00\x00\x01";
    let longest = [&head[..], &[b'u'; 255], &[0], &[b'n'; 255], &[0]].concat();
    assert_eq!(longest.len(), MESSAGE_BYTES_MAX);
    let (request, consumed) = request4(&longest);
    assert_eq!((request.user.len(), consumed), (255, longest.len()));
    let long_user = [&head[..], &[b'u'; 256]].concat();
    assert_eq!(parse_request4(&long_user[..long_user.len() - 1]), Ok(None));
    assert_eq!(parse_request4(&long_user), Err(SocksError::TooLong));
    let ended = [&long_user[..], b"\0name\0"].concat();
    assert_eq!(parse_request4(&ended), Err(SocksError::TooLong));
    let long_name = [&head[..], &[0], &[b'n'; 256]].concat();
    assert_eq!(parse_request4(&long_name), Err(SocksError::TooLong));
}

#[test]
fn replies_are_byte_exact() {
    let sent = |code, bound: Option<&str>| {
        let (bytes, len) = reply5(code, bound.map(|text| text.parse().unwrap()));
        bytes[..len].to_vec()
    };
    assert_eq!(sent(Reply5::Succeeded, Some("1.2.3.4:258")), [5, 0, 0, 1, 1, 2, 3, 4, 1, 2]);
    assert_eq!(sent(Reply5::AddressTypeNotSupported, None), [5, 8, 0, 1, 0, 0, 0, 0, 0, 0]);
    let mut with_v6 = vec![5, 0, 0, 4, 0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
    with_v6.extend_from_slice(&[1, 2]);
    assert_eq!(sent(Reply5::Succeeded, Some("[2001:db8::1]:258")), with_v6);
    let bound = Some("1.2.3.4:258".parse().unwrap());
    assert_eq!(reply4(Reply4::Granted, bound), [0, 90, 1, 2, 1, 2, 3, 4]);
    assert_eq!(reply4(Reply4::Rejected, None), [0, 91, 0, 0, 0, 0, 0, 0]);
}

/// Feeds a SOCKS5 session in the given pieces, as a handler does. Returns the parsed messages and the remaining bytes.
fn session(input: &[u8], cuts: &[usize]) -> (Option<Methods>, Option<Request5>, Vec<u8>) {
    let (mut methods, mut request, mut buf) = (None, None, Vec::new());
    let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut % (input.len() + 1)).chain([0, input.len()]).collect();
    cuts.sort_unstable();
    for pair in cuts.windows(2) {
        buf.extend_from_slice(&input[pair[0]..pair[1]]);
        if methods.is_none() {
            let Some((parsed, consumed)) = parse_greeting5(&buf).unwrap() else { continue };
            methods = Some(parsed);
            buf.drain(..consumed);
        }
        if request.is_none() {
            let Some((parsed, consumed)) = parse_request5(&buf).unwrap() else { continue };
            request = Some(parsed);
            buf.drain(..consumed);
        }
    }
    (methods, request, buf)
}

proptest! {
    #[test]
    fn any_split_of_a_session_gives_the_same_messages(cuts in prop::collection::vec(any::<usize>(), 0..8), data: Vec<u8>) {
        for request in [CONNECT_V4, CONNECT_V6, CONNECT_NAME] {
            let input = [GREETING, request, &data[..]].concat();
            let (methods, parsed, rest) = session(&input, &cuts);
            prop_assert_eq!(methods, Some(Methods { no_auth: true, user_pass: true }));
            prop_assert_eq!(parsed, Some(request5(request).0));
            prop_assert_eq!(rest, data.clone());
        }
    }

    #[test]
    fn any_bytes_return_a_result(mut bytes: Vec<u8>, first in 0u8..6) {
        if let Some(byte) = bytes.first_mut() {
            *byte = first;
        }
        let consumed = [
            parse_greeting5(&bytes).ok().flatten().map(|parsed| parsed.1),
            parse_auth(&bytes).ok().flatten().map(|parsed| parsed.1),
            parse_request5(&bytes).ok().flatten().map(|parsed| parsed.1),
            parse_request4(&bytes).ok().flatten().map(|parsed| parsed.1),
        ];
        prop_assert!(consumed.into_iter().flatten().all(|consumed| consumed <= bytes.len()));
    }
}

//! Users and groups by name, from the databases of the system (`/etc/passwd`, and what nsswitch.conf adds).

use std::ffi::CString;
use std::io::{self, ErrorKind};
use std::mem::MaybeUninit;
use std::ptr;

/// Returns the id of a user, by its name or its number.
///
/// # Errors
/// No user has this name, or the databases cannot be read.
pub(super) fn user(name: &str) -> io::Result<u32> {
    let of_name = |text: &CString, buf: &mut [libc::c_char]| {
        let (mut entry, mut found) = (MaybeUninit::<libc::passwd>::uninit(), ptr::null_mut());
        // SAFETY: the pointers are of live values, and the length is that of the buffer.
        let error =
            unsafe { libc::getpwnam_r(text.as_ptr(), entry.as_mut_ptr(), buf.as_mut_ptr(), buf.len(), &raw mut found) };
        // SAFETY: a result that is not null points to the entry, which is filled then.
        (error, (!found.is_null()).then(|| unsafe { entry.assume_init() }.pw_uid))
    };
    id("user", name, of_name)
}

/// Returns the id of a group, by its name or its number.
///
/// # Errors
/// No group has this name, or the databases cannot be read.
pub(super) fn group(name: &str) -> io::Result<u32> {
    let of_name = |text: &CString, buf: &mut [libc::c_char]| {
        let (mut entry, mut found) = (MaybeUninit::<libc::group>::uninit(), ptr::null_mut());
        // SAFETY: the pointers are of live values, and the length is that of the buffer.
        let error =
            unsafe { libc::getgrnam_r(text.as_ptr(), entry.as_mut_ptr(), buf.as_mut_ptr(), buf.len(), &raw mut found) };
        // SAFETY: a result that is not null points to the entry, which is filled then.
        (error, (!found.is_null()).then(|| unsafe { entry.assume_init() }.gr_gid))
    };
    id("group", name, of_name)
}

fn id(
    kind: &str,
    name: &str,
    of_name: impl Fn(&CString, &mut [libc::c_char]) -> (i32, Option<u32>),
) -> io::Result<u32> {
    let text = CString::new(name)?;
    let mut buf = vec![0; ENTRY_BYTES_MIN];
    loop {
        match of_name(&text, &mut buf) {
            (libc::ERANGE, _) if buf.len() < ENTRY_BYTES_MAX => buf.resize(buf.len() * 4, 0),
            (_, Some(id)) => return Ok(id),
            // A number is an id unless an account has it as its name. The greatest number means "no change".
            (_, None) => {
                let number = name.parse().ok().filter(|number| *number != u32::MAX);
                let unknown = || io::Error::new(ErrorKind::NotFound, format!("this host has no {kind} {name:?}"));
                return number.ok_or_else(unknown);
            }
        }
    }
}

/// First size of the buffer for the texts of an entry, and the greatest one.
const ENTRY_BYTES_MIN: usize = 1 << 10;
const ENTRY_BYTES_MAX: usize = 1 << 20;

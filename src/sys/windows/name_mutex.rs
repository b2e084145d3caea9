//! Names of running processes: each is a named mutex, which ends with the last process that holds it.

use std::io;
use std::os::windows::io::{FromRawHandle, OwnedHandle};
use std::ptr;

use windows_sys::Win32::Foundation::{ERROR_ACCESS_DENIED, ERROR_ALREADY_EXISTS, GetLastError};
use windows_sys::Win32::System::Threading::CreateMutexW;

/// A name that no other process on this machine has.
#[derive(Debug)]
#[allow(dead_code)] // The mutex lasts as long as the handle.
pub struct NameClaim(OwnedHandle);

/// Takes a name that is free again when the claim is dropped or the process ends, however it ends.
///
/// # Errors
/// [`io::ErrorKind::AddrInUse`] if another process has the name, or another error of the system.
pub fn claim_name(name: &str) -> io::Result<Option<NameClaim>> {
    let name: Vec<u16> = format!("Global\\{}\0", name.replace('\\', "_")).encode_utf16().collect();
    // SAFETY: the name is a string with a final zero that outlives the call. The error is that of this call.
    let (handle, error) = unsafe { (CreateMutexW(ptr::null(), 0, name.as_ptr()), GetLastError()) };
    if handle.is_null() {
        // The mutex of another user cannot be opened.
        return Err(match error {
            ERROR_ACCESS_DENIED => io::ErrorKind::AddrInUse.into(),
            code => io::Error::from_raw_os_error(code as i32),
        });
    }
    // SAFETY: CreateMutexW has just made the handle, and nothing else owns it.
    let handle = unsafe { OwnedHandle::from_raw_handle(handle) };
    if error == ERROR_ALREADY_EXISTS { Err(io::ErrorKind::AddrInUse.into()) } else { Ok(Some(NameClaim(handle))) }
}

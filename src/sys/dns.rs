//! Questions to the name servers of this system, by the resolver of the C library: glibc's `res_nquery` and `res_nsearch`, or
//! musl's `res_query` (resolver(3)). They know resolv.conf with its servers, search list and options, and return the whole
//! answer with its times to live, which `getaddrinfo` keeps to itself.
//!
//! A call blocks for as long as the name servers take, so only workers call it. glibc's functions are looked up at run time:
//! their names have changed (glibc 2.34), and a program that was linked against one name must run with the other.

use std::ffi::CString;

use super::DnsError;

/// True: the records of services can be asked for.
pub(crate) const HAS_DNS: bool = true;

/// Asks the name servers for the records of a type, and returns the answer as it came (RFC 1035, section 4). With
/// `is_searched` the search list of resolv.conf applies, where the C library has such a call.
///
/// # Errors
/// The name does not exist or has no such record, or no server answers.
pub(crate) fn query_dns(name: &str, kind: u16, is_searched: bool) -> Result<Vec<u8>, DnsError> {
    let name = CString::new(name).map_err(|_| DnsError::NotFound)?;
    let mut answer = vec![0; ANSWER_BYTES_MAX];
    let length = library::ask(&name, i32::from(kind), is_searched, &mut answer)?;
    // The length is that of the whole answer, of which the buffer may have a part.
    answer.truncate(usize::try_from(length).map_err(|_| of_last_error())?);
    Ok(answer)
}

/// Returns the error that the last call of this thread has left.
fn of_last_error() -> DnsError {
    // SAFETY: the function returns the address of the variable of this thread, which lives as long as the thread.
    match unsafe { *__h_errno_location() } {
        HOST_NOT_FOUND | NO_DATA => DnsError::NotFound,
        _ => DnsError::Failed,
    }
}

#[cfg(target_env = "gnu")]
mod library {
    use std::ffi::{CStr, c_char, c_int, c_void};
    use std::sync::OnceLock;

    use super::{DnsError, IN};

    type Open = unsafe extern "C" fn(*mut c_void) -> c_int;
    type Close = unsafe extern "C" fn(*mut c_void);
    type Ask = unsafe extern "C" fn(*mut c_void, *const c_char, c_int, c_int, *mut u8, c_int) -> c_int;

    /// The functions of the resolver.
    struct Functions {
        open: Open,
        close: Close,
        query: Ask,
        search: Ask,
    }

    /// A state of the resolver: `struct __res_state`, of 568 bytes on 64-bit systems and fewer on others.
    #[repr(C, align(16))]
    struct State([u8; 2048]);

    pub fn ask(name: &CStr, kind: c_int, is_searched: bool, answer: &mut [u8]) -> Result<c_int, DnsError> {
        static FUNCTIONS: OnceLock<Option<Functions>> = OnceLock::new();
        let functions = FUNCTIONS.get_or_init(Functions::find).as_ref().ok_or(DnsError::Unsupported)?;
        let mut state = Box::new(State([0; 2048]));
        let state = std::ptr::from_mut(&mut *state).cast::<c_void>();
        // SAFETY: the state is zeroed and larger than the structure, as res_ninit(3) wants.
        if unsafe { (functions.open)(state) } != 0 {
            return Err(DnsError::Failed);
        }
        let ask = if is_searched { functions.search } else { functions.query };
        let room = c_int::try_from(answer.len()).unwrap_or(c_int::MAX);
        // SAFETY: the state is initialized, the name ends with NUL, and the buffer has as many bytes as the call says.
        let length = unsafe { ask(state, name.as_ptr(), IN, kind, answer.as_mut_ptr(), room) };
        // SAFETY: the state is initialized, and is not used any more.
        unsafe { (functions.close)(state) };
        Ok(length)
    }

    impl Functions {
        fn find() -> Option<Functions> {
            let open = symbol(&[c"__res_ninit"])?;
            let close = symbol(&[c"__res_nclose"])?;
            let query = symbol(&[c"res_nquery", c"__res_nquery"])?;
            let search = symbol(&[c"res_nsearch", c"__res_nsearch"])?;
            // SAFETY: these are the types that resolv.h of glibc declares for these symbols.
            unsafe {
                Some(Functions {
                    open: std::mem::transmute::<*mut c_void, Open>(open),
                    close: std::mem::transmute::<*mut c_void, Close>(close),
                    query: std::mem::transmute::<*mut c_void, Ask>(query),
                    search: std::mem::transmute::<*mut c_void, Ask>(search),
                })
            }
        }
    }

    /// Returns the first of these symbols that the C library has; before glibc 2.34 some are in a library of their own.
    fn symbol(names: &[&CStr]) -> Option<*mut c_void> {
        let find = |library: *mut c_void| {
            // SAFETY: the name ends with NUL, and the handle is that of the program or of a library that stays loaded.
            names.iter().map(|name| unsafe { libc::dlsym(library, name.as_ptr()) }).find(|found| !found.is_null())
        };
        find(libc::RTLD_DEFAULT).or_else(|| {
            // SAFETY: the name ends with NUL. The library belongs to glibc, and is never unloaded.
            let library = unsafe { libc::dlopen(c"libresolv.so.2".as_ptr(), libc::RTLD_NOW) };
            if library.is_null() { None } else { find(library) }
        })
    }
}

#[cfg(target_env = "musl")]
mod library {
    use std::ffi::{CStr, c_char, c_int};

    use super::{DnsError, IN};

    unsafe extern "C" {
        fn res_query(name: *const c_char, class: c_int, kind: c_int, answer: *mut u8, room: c_int) -> c_int;
    }

    /// musl has no search for such questions: the caller asks `getaddrinfo` for what this does not find.
    pub fn ask(name: &CStr, kind: c_int, _: bool, answer: &mut [u8]) -> Result<c_int, DnsError> {
        let room = c_int::try_from(answer.len()).unwrap_or(c_int::MAX);
        // SAFETY: the name ends with NUL, and the buffer has as many bytes as the call says.
        Ok(unsafe { res_query(name.as_ptr(), IN, kind, answer.as_mut_ptr(), room) })
    }
}

unsafe extern "C" {
    fn __h_errno_location() -> *mut std::ffi::c_int;
}

/// Bytes of the longest answer (RFC 1035, section 4.2.2).
const ANSWER_BYTES_MAX: usize = 65_535;
/// The class of the Internet (RFC 1035, section 3.2.4).
const IN: i32 = 1;
/// Errors of the resolver (`netdb.h`).
const HOST_NOT_FOUND: i32 = 1;
const NO_DATA: i32 = 4;

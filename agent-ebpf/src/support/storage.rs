//! Storage that the kernel keeps with a task or socket and frees with it, so
//! that no stamp can leak and no map can fill up.
//!
//! The map definitions are written by hand: the layout is what loaders read from
//! the object's BTF.

use core::ffi::c_void;
use core::marker::PhantomData;
use core::ptr;

use aya_ebpf::bindings::bpf_map_type::{BPF_MAP_TYPE_SK_STORAGE, BPF_MAP_TYPE_TASK_STORAGE};
use aya_ebpf::bindings::{BPF_F_NO_PREALLOC, BPF_LOCAL_STORAGE_GET_F_CREATE};
use aya_ebpf::helpers::generated::{bpf_sk_storage_get, bpf_task_storage_get};

use super::kernel::Pointer;

const TASK: usize = BPF_MAP_TYPE_TASK_STORAGE as usize;
const SOCKET: usize = BPF_MAP_TYPE_SK_STORAGE as usize;

/// A storage map: numbers are lengths of arrays, types are pointees.
#[repr(C)]
pub struct Storage<T, const TYPE: usize> {
    r#type: *const [i32; TYPE],
    key: *const i32,
    value: *const T,
    max_entries: *const [i32; 0],
    map_flags: *const [i32; BPF_F_NO_PREALLOC as usize],
    _value: PhantomData<T>,
}

/// One `T` for each task that has one.
pub type TaskStorage<T> = Storage<T, TASK>;
/// One `T` for each socket that has one.
pub type SocketStorage<T> = Storage<T, SOCKET>;

// SAFETY: the pointers are never followed; they only describe the map.
unsafe impl<T, const TYPE: usize> Sync for Storage<T, TYPE> {}

impl<T, const TYPE: usize> Storage<T, TYPE> {
    /// The definition.
    pub const fn new() -> Self {
        Self {
            r#type: ptr::null(),
            key: ptr::null(),
            value: ptr::null(),
            max_entries: ptr::null(),
            map_flags: ptr::null(),
            _value: PhantomData,
        }
    }

    #[inline(always)]
    fn map(&self) -> *mut c_void {
        ptr::from_ref(self).cast_mut().cast()
    }
}

#[inline(always)]
fn flags(create: bool) -> u64 {
    if create { BPF_LOCAL_STORAGE_GET_F_CREATE.into() } else { 0 }
}

impl<T> TaskStorage<T> {
    /// What is kept with `task`, zeroed when it is `create`d now.
    ///
    /// # Safety
    ///
    /// `task` must be a tracepoint's argument.
    #[inline(always)]
    pub unsafe fn get(&self, task: Pointer, create: bool) -> Option<*mut T> {
        let value = unsafe {
            bpf_task_storage_get(self.map(), task.cast_mut().cast(), ptr::null_mut(), flags(create))
        };
        (!value.is_null()).then_some(value.cast())
    }
}

impl<T> SocketStorage<T> {
    /// What is kept with `sock`, zeroed when it is `create`d now.
    ///
    /// # Safety
    ///
    /// `sock` must be a tracepoint's argument, and a full socket.
    #[inline(always)]
    pub unsafe fn get(&self, sock: Pointer, create: bool) -> Option<*mut T> {
        let value = unsafe {
            bpf_sk_storage_get(self.map(), sock.cast_mut().cast(), ptr::null_mut(), flags(create))
        };
        (!value.is_null()).then_some(value.cast())
    }
}

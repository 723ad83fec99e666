//! Where memory comes from: jemalloc. Requests allocate and free on all threads, which the C library's allocator serves
//! at some 15 % of a node's time, and it keeps what a crowd of clients took until somebody asks it to trim. jemalloc's
//! own threads give freed pages back, after 10 s at the latest.
//!
//! RocksDB's C++ stays with the C library's: a `malloc` of our own for the whole process would be called before
//! `main`, by whatever is preloaded (libfaketime hangs there), and RocksDB allocates in large pieces.

use tikv_jemallocator::Jemalloc;

#[global_allocator]
static ALLOCATOR: Jemalloc = Jemalloc;

//! Where memory comes from: jemalloc, for this project's code and for RocksDB's. Requests allocate and free on all
//! threads, which the C library's allocator serves at some 15 % of a node's time, and it keeps what a crowd of clients
//! took until somebody asks it to trim. jemalloc's own threads give freed pages back, after 10 s at the latest.

use tikv_jemallocator::Jemalloc;

#[global_allocator]
static ALLOCATOR: Jemalloc = Jemalloc;

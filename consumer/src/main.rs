//! `sidelog-consumer`: see the library.

use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    sidelog_chassis::install_crypto_provider();
    sidelog_consumer::cli::main()
}

//! The `darlings` command; see [`darlings::cli`].

fn main() -> std::process::ExitCode {
    darlings::cli::main()
}

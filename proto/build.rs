//! Compiles the wire with a compiler written in Rust, so that no protoc is needed.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let files = ["session", "telemetry", "operator", "healing", "local"]
        .map(|n| format!("holdfast/v1/{n}.proto"));
    for file in &files {
        println!("cargo::rerun-if-changed={file}");
    }
    let set = protox::compile(&files, ["."])?;
    tonic_prost_build::configure().compile_fds(set)?;
    Ok(())
}

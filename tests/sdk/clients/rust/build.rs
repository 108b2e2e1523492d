//! Bakes in the version of aws-config, which does not tell its own at run time: from the lock file that this build made.

use std::{env, fs, path::Path};

fn main() {
    let lock = Path::new(&env::var("CARGO_MANIFEST_DIR").expect("set by cargo")).join("Cargo.lock");
    println!("cargo:rerun-if-changed={}", lock.display());
    let text = fs::read_to_string(&lock).expect("Cargo.lock is made before this runs");
    let version = text
        .split_once("name = \"aws-config\"\nversion = \"")
        .and_then(|(_, rest)| rest.split('"').next())
        .expect("aws-config is in Cargo.lock");
    println!("cargo:rustc-env=AWS_CONFIG_VERSION={version}");
}

//! A rust-libp2p peer that speaks the contract of the interoperability tests: settings come in
//! environment variables, one JSON line goes out on stdout, logs go to stderr.

mod autonat;
mod dialing;
mod echo;
mod node;
mod serving;
mod settings;
mod transport;

use std::process::ExitCode;

use serde_json::json;

use settings::{Role, Settings};

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let done = match settings::read() {
        Ok(settings) => run(&settings).await,
        Err(error) => {
            if std::env::var("ROLE").is_ok_and(|role| role == "dial") {
                let mut report = dialing::blank();
                report["error"] = json!(error.to_string());
                println!("{report}");
            }
            Err(error)
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("failed: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(settings: &Settings) -> Result<(), settings::Failure> {
    match (settings.role, settings.autonat) {
        (Role::Dial, Some(_)) => autonat::run(settings).await,
        (Role::Dial, None) => dialing::run(settings).await,
        _ => serving::run(settings).await,
    }
}

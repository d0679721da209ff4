//! rust-libp2p as a benchmark peer. The contract is in ../README.md. This file reads the settings
//! and speaks the lines.

mod node;
mod serving;
mod streams;
mod works;

use std::{env, error::Error, process::ExitCode};

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, BufReader, stdin};

use node::Node;
use works::Driver;

pub type Failure = Box<dyn Error + Send + Sync>;

#[tokio::main]
async fn main() -> ExitCode {
    match run().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("failed: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run() -> Result<(), Failure> {
    let count: usize = env::var("HOSTS").map_or(Ok(1), |text| text.parse())?;
    let (mut nodes, mut addresses) = (Vec::new(), Vec::new());
    for _ in 0..count {
        let (node, address) = Node::start().await?;
        addresses.extend(address.map(|it| it.to_string()));
        nodes.push(node);
    }
    println!(
        "{}",
        json!({"version": node::VERSION, "addresses": addresses})
    );
    let mut driver = Driver::new(nodes);
    let mut lines = BufReader::new(stdin()).lines();
    while let Some(line) = lines.next_line().await? {
        let request: Value = serde_json::from_str(&line)?;
        let answer = driver.take(&request).await;
        println!(
            "{}",
            answer.unwrap_or_else(|error| json!({"error": error.to_string()}))
        );
    }
    Ok(())
}

//! What the agent learns about its host: over restarts, and with people who tell it more.

use std::fs;

use anyhow::{Context, Result, ensure};
use holdfast_tests::{Agent, Collector, wait};
use serde_json::Value;

/// How much the agent says that it knows: groups of signals that still learn.
fn learning(agent: &Agent) -> Result<Option<u64>> {
    let known = agent.local(&["calibration"])?;
    ensure!(known["promised_per_week"] == 1.0, "{known}");
    Ok(known["learning"].as_u64().filter(|groups| *groups > 0))
}

#[tokio::test]
async fn what_is_learnt_outlives_a_restart_and_a_damaged_file_is_told() -> Result<()> {
    let collector = Collector::start().await?;
    let mut agent = Agent::start("learns", &collector.url()).await?;
    let file = agent.state("scorer.state");
    wait::until("something is learnt", async || learning(&agent)).await?;
    agent.stop().await?;
    let learnt = fs::read(&file).context("nothing was kept")?;
    ensure!(learnt.starts_with(b"HFSC"), "it is no state of the scorer");

    let forgot = async || -> Result<Option<String>> {
        let events = collector.events("").await?;
        let told = events.into_iter().filter_map(|event| event.event);
        Ok(told.filter(|event| event.kind == "scorer.forgot").map(|event| event.message).next())
    };
    agent.start_again("learns", &collector.url()).await?;
    wait::until("it goes on learning", async || learning(&agent)).await?;
    agent.stop().await?;
    ensure!(forgot().await?.is_none(), "{:?}", forgot().await?);
    ensure!(fs::read(&file)?.len() >= learnt.len(), "less is known than before");

    fs::write(&file, learnt.get(..learnt.len() / 2).unwrap_or_default())?;
    agent.start_again("learns", &collector.url()).await?;
    let told = wait::until("it tells that it forgot", async || forgot().await).await?;
    ensure!(told.contains("damaged"), "{told}");
    agent.stop().await
}

#[tokio::test]
async fn people_tell_the_agent_and_are_told_when_it_makes_no_sense() -> Result<()> {
    let mut agent = Agent::start("told", "").await?;
    let episodes = agent.holdfast(&["episodes", "--json"])?;
    ensure!(episodes.code == Some(0), "{}", episodes.stderr);
    let episodes: Value = serde_json::from_str(&episodes.stdout)?;
    ensure!(episodes.as_array().is_some_and(Vec::is_empty), "{episodes}");
    let explained = agent.holdfast(&["explain"])?;
    ensure!(explained.code == Some(1), "{}", explained.stdout);
    ensure!(explained.stderr.contains("no episode is remembered"), "{}", explained.stderr);

    let unknown = agent.holdfast(&["local", "feedback", "7", "false"])?;
    ensure!(
        unknown.code == Some(1) && unknown.stderr.contains("no episode 7"),
        "{}",
        unknown.stderr
    );
    let noted = agent.holdfast(&["local", "note", "web 2.1", "--unit", "web.service"])?;
    ensure!(noted.code == Some(0) && noted.stdout.contains("noted"), "{}", noted.stderr);
    let long = "x".repeat(1_000);
    for bad in ["", "two\nlines", &long] {
        let refused = agent.holdfast(&["local", "note", bad])?;
        ensure!(refused.code == Some(1) && refused.stderr.contains("one line"), "{bad:?}");
    }
    agent.stop().await?;

    let off = "[scoring]\nenabled = false\n";
    let mut agent = Agent::start_with("told", "", off).await?;
    for command in [&["episodes"][..], &["local", "calibration"], &["local", "note", "a change"]] {
        let answer = agent.holdfast(command)?;
        ensure!(
            answer.code == Some(1) && answer.stderr.contains("switched off"),
            "{}",
            answer.stderr
        );
    }
    agent.stop().await
}

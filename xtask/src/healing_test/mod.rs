//! `cargo xtask healing-test`: the agent heals real units on a host with real systemd.
//!
//! Each scenario has a service of its own that falls ill in one way, and looks at what was
//! done: by the starts that the service itself has counted, by what systemd says, and by the
//! journal that the agent keeps.

mod scenarios;
pub(crate) mod scene;

use anyhow::{Result, bail, ensure};
use holdfast_core::clock::BootTime;

use crate::stop::Stop;
use crate::testhost::{self, Host, Switch};
use crate::{package, shell};
use scene::Scene;

/// Which scenarios.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Only these, by name; `list` shows them
    #[arg(value_name = "SCENARIO")]
    only: Vec<String>,
    /// Build profile of the package
    #[arg(long, default_value = "release")]
    profile: String,
    /// How often the agent is killed while it heals
    #[arg(long, value_name = "N", default_value_t = 6)]
    kills: u32,
}

/// A scenario: its name, what it shows, and how. What it gives back are its figures.
pub(super) struct Scenario {
    name: &'static str,
    shows: &'static str,
    run: fn(&Scene) -> Result<String>,
}

/// Builds the package, boots a host and plays all scenarios on it.
pub(crate) fn run(args: &Args) -> Result<()> {
    if args.only.iter().any(|name| name == "list") {
        for Scenario { name, shows, .. } in scenarios::ALL {
            println!("{name:<14}{shows}");
        }
        return Ok(());
    }
    for name in &args.only {
        let known = scenarios::ALL.iter().any(|scenario| scenario.name == name);
        ensure!(known, "no scenario {name}; `list` shows them");
    }
    testhost::prepare()?;
    let debs = package::debs(&args.profile, &shell::target_dir()?.join("packages"))?;
    let base = testhost::base()?;
    let stop = Stop::listen()?;
    let switch = Switch::new()?;
    let host = Host::start(&base, &switch, 1, &stop)?;
    let scene = Scene::new(host, stop, &debs, args.kills)?;
    let mut failed = 0;
    for Scenario { name, shows, run } in scenarios::ALL {
        if !args.only.is_empty() && !args.only.iter().any(|only| only == name) {
            continue;
        }
        let start = BootTime::now();
        let result = run(&scene);
        let took = BootTime::now().since(start).as_secs_f64();
        match &result {
            Ok(figures) => println!("{took:>6.1} s  ok      {name}: {shows}{figures}"),
            Err(error) => {
                failed += 1;
                println!("{took:>6.1} s  FAILED  {name}: {shows}: {error:#}");
                eprintln!("{}", scene.tail());
            }
        }
        scene.clean_up()?;
    }
    if failed > 0 {
        bail!("{failed} scenarios failed");
    }
    scene.power_off()
}

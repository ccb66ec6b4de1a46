//! Runs a control plane without nodes: `cargo run -p minicp --example minicp -- DATA_DIR ADDR:PORT`. The kubeconfig is DATA_DIR/kubeconfig.

use std::rc::Rc;

struct Stderr;

impl log::Log for Stderr {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }
    fn log(&self, record: &log::Record<'_>) {
        if record.target().starts_with("minicp") {
            eprintln!("{} {}: {}", record.level(), record.target(), record.args());
        }
    }
    fn flush(&self) {}
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    log::set_logger(&Stderr)?;
    log::set_max_level(log::LevelFilter::Debug);
    let mut args = std::env::args().skip(1);
    let (Some(dir), Some(listen)) = (args.next(), args.next()) else {
        return Err("usage: minicp DATA_DIR ADDR:PORT".into());
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().max_blocking_threads(4).build()?;
    tokio::task::LocalSet::new().block_on(&runtime, async {
        let config = minicp::Config::new(dir.clone().into(), listen.parse()?);
        let server = minicp::Server::start(config, Rc::new(minicp::SystemClock)).await?;
        let path = std::path::Path::new(&dir).join("kubeconfig");
        minicp::pki::files::write_private(dir.as_ref(), &[("kubeconfig", &server.admin_kubeconfig())])?;
        println!("{} {} {}", server.url(), path.display(), server.join_token());
        tokio::signal::ctrl_c().await?;
        server.stop().await;
        Ok(())
    })
}

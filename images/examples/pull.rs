//! `pull STORE REF`: the pull alone, for benchmarks (time, peak memory) and for looking at it under a profiler.
use mote_images::{Cancel, PullOptions, Silent, Store};

fn main() -> Result<(), mote_images::Error> {
    let mut args = std::env::args().skip(1);
    let (Some(dir), Some(reference)) = (args.next(), args.next()) else {
        eprintln!("usage: pull STORE REF [volatile]");
        std::process::exit(2);
    };
    let options = PullOptions { durable: args.next().is_none(), ..PullOptions::default() };
    let image = Store::open(dir.as_ref())?.pull(&reference.parse()?, &options, &Silent, &Cancel::default())?;
    println!("{} {} layers, {} bytes", image.manifest, image.layers.len(), image.size);
    Ok(())
}

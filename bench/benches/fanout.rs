//! What a shard itself spends for one message to one player, on a driver that does nothing.

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};

use bench::schedule::Protocol;
use bench::walk::Walk;
use ringcast::config::TimeJitter;

fn fanout(c: &mut Criterion) {
    let mut group = c.benchmark_group("fan-out");
    group.sample_size(20);
    for (name, protocol, time_jitter) in [
        ("rtmp", Protocol::Rtmp, TimeJitter::Off),
        ("http-flv", Protocol::Flv, TimeJitter::Off),
        ("rtmp, own time base", Protocol::Rtmp, TimeJitter::Full),
    ] {
        for players in [10, 1_000] {
            group.throughput(Throughput::Elements(players as u64));
            group.bench_function(BenchmarkId::new(name, players), |b| {
                let mut walk = Walk::new(players, protocol, time_jitter);
                b.iter(|| {
                    walk.publish();
                    walk.deliver();
                });
            });
        }
    }
    group.finish();
}

criterion_group!(benches, fanout);
criterion_main!(benches);

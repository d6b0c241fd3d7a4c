//! The queue's bytes, and the counters of what passes: nothing makes them panic, and counting doesn't depend on the chunks.

#![no_main]

use libfuzzer_sys::fuzz_target;
use sidelog_proxy::queue::exchange::Exchange;
use sidelog_proxy::queue::feed::Feed;
use sidelog_proxy::traffic::count::Counter;

fuzz_target!(|input: (usize, &[u8])| {
    let (cut, bytes) = input;
    if let Some((exchange, _)) = Exchange::decode(bytes) {
        exchange.request.fields.iter().for_each(drop);
    }
    let (front, back) = bytes.split_at(cut % (bytes.len() + 1));
    let feeds = [Feed::Events, Feed::Lines, Feed::Sequence].map(Counter::of_feed);
    for mut whole in feeds.into_iter().chain([Counter::of_messages(), Counter::of_frames()]) {
        let mut parted = whole;
        whole.read(bytes);
        parted.read(front);
        parted.read(back);
        assert_eq!(whole, parted);
    }
});

// Deltas, undone by the decoder that Ably publishes for its SDKs: what arrives is what was
// published, and most of it came as deltas.

import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import * as vcdiff from '@ably/vcdiff-decoder';
import * as Ably from 'ably';
import { inBothFormats, reaches, soon, subscribed, unique } from './helpers.mjs';

const delta = { params: { delta: 'vcdiff' } };

/** The SDK's plugin, which counts; broken decides which deltas it cannot decode. */
function decoder(broken = () => false) {
  const plugin = {
    calls: 0,
    decode(bytes, base) {
      if (broken(++plugin.calls)) throw new Error('broken on purpose');
      return vcdiff.decode(bytes, base);
    },
  };
  return plugin;
}

/** A state of many parts, of which a few change from one version to the next. */
function version(n) {
  const parts = {};
  for (let i = 0; i < 40; i++) parts[`part-${i}`] = { price: (i * 7919) % 1000, changed: i % 7 === n % 7 ? n : 0, 名: '部分' };
  return parts;
}

// PC3, PC3a, RTL19c, RTL20, DE2a-b
inBothFormats('what comes as deltas is what was published', async ({ connected, binary }) => {
  const channelName = unique('delta');
  const plugin = decoder();
  const reader = await connected({ plugins: { vcdiff: plugin } });
  const channel = reader.channels.get(channelName, delta);
  const box = await subscribed(channel);
  assert.equal(channel.params.delta, 'vcdiff');
  const publishers = [
    (await connected()).channels.get(channelName),
    (await connected({ useBinaryProtocol: !binary })).channels.get(channelName),
    channel,
  ];
  const want = [];
  for (let n = 0; n < 30; n++) {
    const values = [version(n), JSON.stringify(version(n + 1)), Buffer.from(JSON.stringify(version(n + 2)))];
    const batch = values.slice(0, 1 + (n % 3)).map((data) => ({ name: String(n), data, extras: { headers: { n } } }));
    want.push(...batch);
    await soon(publishers[n % publishers.length].publish(batch), 'publish');
  }
  const got = await box.count(want.length);
  got.forEach((m, i) => {
    assert.equal(m.name, want[i].name);
    if (Buffer.isBuffer(want[i].data)) assert.ok(Buffer.from(m.data).equals(want[i].data), `message ${i}`);
    else assert.deepEqual(m.data, want[i].data, `message ${i}`);
    assert.deepEqual(m.extras.headers, want[i].extras.headers);
    assert.equal(m.encoding ?? undefined, undefined);
  });
  assert.equal(plugin.calls, want.length - 1, 'all but the first are deltas');
});

inBothFormats('large messages with changes everywhere come as deltas too', async ({ connected }) => {
  const plugin = decoder();
  const client = await connected({ plugins: { vcdiff: plugin } });
  const channel = client.channels.get(unique('large'), delta);
  const box = await subscribed(channel);
  let data = randomBytes(50000);
  const want = [];
  for (let n = 0; n < 10; n++) {
    want.push(data);
    await soon(channel.publish('bytes', data), 'publish');
    data = Buffer.concat([data.subarray(20000 + n, 45000), randomBytes(100), data.subarray(0, 20000)]);
    for (let i = n; i < data.length; i += 997) data[i]++;
  }
  const got = await box.count(want.length);
  got.forEach((m, i) => assert.ok(Buffer.from(m.data).equals(want[i]), `message ${i}`));
  assert.equal(plugin.calls, want.length - 1);
});

inBothFormats('messages that have nothing in common, or are encrypted, come in full', async ({ connected }) => {
  const plugin = decoder();
  const client = await connected({ plugins: { vcdiff: plugin } });
  const key = await Ably.Realtime.Crypto.generateRandomKey();
  const plain = client.channels.get(unique('random'), delta);
  const secret = client.channels.get(unique('secret'), { ...delta, cipher: { key } });
  for (const [channel, values] of [
    [plain, Array.from({ length: 4 }, () => randomBytes(500).toString('base64'))],
    [secret, Array.from({ length: 4 }, (_, n) => version(n))],
  ]) {
    const box = await subscribed(channel);
    for (const data of values) await soon(channel.publish('n', data), 'publish');
    assert.deepEqual((await box.count(values.length)).map((m) => m.data), values);
  }
  assert.equal(plugin.calls, 0);
});

// RTL18c
inBothFormats('a client that cannot decode a delta loses nothing', async ({ connected }) => {
  const plugin = decoder((call) => call === 3 || call === 6);
  const client = await connected({ plugins: { vcdiff: plugin } });
  const channel = client.channels.get(unique('broken'), delta);
  const box = await subscribed(channel);
  const reasons = [];
  channel.on('attaching', (change) => reasons.push(change.reason?.code));
  const publisher = (await connected()).channels.get(channel.name);
  for (let n = 0; n < 20; n++) {
    await soon(publisher.publish('n', version(n)), 'publish');
    await box.count(n + 1);
  }
  assert.deepEqual(box.messages.map((m) => m.data), Array.from({ length: 20 }, (_, n) => version(n)));
  assert.deepEqual(reasons, [40018, 40018]);
  assert.equal(plugin.calls, 19, 'each recovery begins with one full message');
});

// RTL16a
inBothFormats('deltas are turned on and off on a channel that is attached', async ({ connected }) => {
  const plugin = decoder();
  const client = await connected({ plugins: { vcdiff: plugin } });
  const channel = client.channels.get(unique('options'));
  const box = await subscribed(channel);
  const publisher = (await connected()).channels.get(channel.name);
  const calls = [];
  for (let n = 0; n < 9; n++) {
    if (n === 3) await soon(channel.setOptions(delta), 'setOptions');
    if (n === 6) await soon(channel.setOptions({ params: {} }), 'setOptions');
    await soon(publisher.publish('n', version(n)), 'publish');
    await box.count(n + 1);
    calls.push(plugin.calls);
  }
  assert.deepEqual(box.messages.map((m) => m.data), Array.from({ length: 9 }, (_, n) => version(n)));
  assert.deepEqual(calls, [0, 0, 0, 0, 1, 2, 2, 2, 2]);
});

// Without echo a client is not sent its own messages, which are no bases then.
inBothFormats('two clients without echo understand each other', async ({ connected }) => {
  const name = unique('conversation');
  const plugins = [decoder(), decoder()];
  const channels = [];
  for (const vcdiff of plugins) {
    channels.push((await connected({ plugins: { vcdiff }, echoMessages: false })).channels.get(name, delta));
  }
  const boxes = [await subscribed(channels[0]), await subscribed(channels[1])];
  for (let n = 0; n < 10; n++) {
    await soon(channels[n % 2].publish('n', version(n)), 'publish');
    await boxes[(n + 1) % 2].count(Math.floor(n / 2) + 1);
  }
  for (const i of [0, 1]) {
    assert.deepEqual(boxes[i].messages.map((m) => m.data), [0, 1, 2, 3, 4].map((k) => version(2 * k + 1 - i)));
    assert.equal(plugins[i].calls, 4);
  }
});

inBothFormats('deltas go on after the connection was resumed', async ({ connected }) => {
  const plugin = decoder();
  const client = await connected({ plugins: { vcdiff: plugin }, disconnectedRetryTimeout: 100 });
  const channel = client.channels.get(unique('resumed'), delta);
  const box = await subscribed(channel);
  const publisher = (await connected()).channels.get(channel.name);
  for (let n = 0; n < 3; n++) await soon(publisher.publish('n', version(n)), 'publish');
  await box.count(3);
  const lost = reaches(client.connection, 'disconnected');
  client.connection.connectionManager.activeProtocol.transport.disconnect();
  await lost;
  for (let n = 3; n < 6; n++) await soon(publisher.publish('n', version(n)), 'publish');
  await reaches(client.connection, 'connected');
  await box.count(6);
  for (let n = 6; n < 9; n++) await soon(publisher.publish('n', version(n)), 'publish');
  assert.deepEqual((await box.count(9)).map((m) => m.data), Array.from({ length: 9 }, (_, n) => version(n)));
  assert.ok(plugin.calls >= 5, `${plugin.calls} deltas`);
});

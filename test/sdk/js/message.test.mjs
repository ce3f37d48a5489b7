// Messages: what is published arrives, as it is, once and in order.

import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { failsWith, inBothFormats, jwt, soon, subscribed, unique } from './helpers.mjs';

const values = [
  ['a text', 'plain text äöü 测试 🙂 \u0000 \u2028'],
  ['an empty text', ''],
  ['an object', { text: 'x', number: 1.5, nothing: null, list: [1, [2]], 测试: true }],
  ['an array', [1, 'two', { three: 3 }]],
  ['an empty object', {}],
  ['bytes', Buffer.from([0, 1, 2, 127, 128, 254, 255])],
  ['no bytes', Buffer.alloc(0)],
  ['many bytes', randomBytes(40000)],
  ['a long text', 'x'.repeat(60000)],
  ['null', null],
  ['undefined', undefined],
];

function same(got, want, what) {
  if (Buffer.isBuffer(want)) assert.ok(Buffer.from(got).equals(want), what);
  else if (want === null || want === undefined) assert.equal(got ?? undefined, undefined, what);
  else assert.deepEqual(got, want, what);
}

// RSL4a, RSL4c1-3, RSL4d1-3, RSL6a
inBothFormats('data of every type arrives as it was, in either format', async ({ connected, binary }) => {
  const channelName = unique('data');
  const publisher = (await connected()).channels.get(channelName);
  const boxes = [
    await subscribed((await connected()).channels.get(channelName)),
    await subscribed((await connected({ useBinaryProtocol: !binary })).channels.get(channelName)),
  ];
  const results = [];
  for (const [name, data] of values) {
    results.push(await soon(publisher.publish({ name, data, extras: { headers: { s: 'x', n: 1, b: true } } }), name));
  }
  for (const box of boxes) {
    const got = await box.count(values.length);
    values.forEach(([name, data], i) => {
      assert.equal(got[i].name, name);
      same(got[i].data, data, name);
      assert.equal(got[i].encoding ?? undefined, undefined, `${name} is decoded`);
      assert.deepEqual(got[i].extras, { headers: { s: 'x', n: 1, b: true } });
      assert.equal(got[i].serial, results[i].serials[0], 'the serial is the one that the publisher got');
      assert.equal(got[i].action, 'message.create');
      assert.ok(Math.abs(got[i].timestamp - Date.now()) < 60000);
    });
  }
});

// RTL6i3
inBothFormats('a message needs no name, and no data', async ({ connected }) => {
  const channel = (await connected()).channels.get(unique('bare'));
  const box = await subscribed(channel);
  await soon(channel.publish(null, 'data only'), 'a publish');
  await soon(channel.publish('name only', null), 'a publish');
  await soon(channel.publish({}), 'a publish');
  const [first, second, third] = await box.count(3);
  assert.deepEqual([first.name ?? null, first.data], [null, 'data only']);
  assert.deepEqual([second.name, second.data ?? null], ['name only', null]);
  assert.deepEqual([third.name ?? null, third.data ?? null], [null, null]);
});

// RTL6f, TM2a, TM2c
inBothFormats('messages carry ids, and who published them', async ({ connected }) => {
  const client = await connected({ clientId: 'judy' });
  const channel = client.channels.get(unique('ids'));
  const box = await subscribed(channel);
  await soon(channel.publish('a', '0'), 'a publish');
  await soon(channel.publish([{ name: 'b' }, { name: 'c' }]), 'a publish');
  const got = await box.count(3);
  const id = client.connection.id;
  assert.deepEqual(got.map((m) => m.id), [`${id}:0:0`, `${id}:1:0`, `${id}:1:1`]);
  for (const m of got) {
    assert.equal(m.connectionId, id);
    assert.equal(m.clientId, 'judy');
  }
  assert.ok(got[0].serial < got[1].serial && got[1].serial < got[2].serial);
});

// RTL6i2, RTL6j
inBothFormats('a publish of several messages is one, with a serial each', async ({ connected }) => {
  const channel = (await connected()).channels.get(unique('batch'));
  const box = await subscribed(channel);
  const result = await soon(channel.publish([{ name: 'a', data: '1' }, { name: 'b', data: { x: 2 } }, { name: 'c', data: Buffer.from('3') }]), 'a publish');
  const got = await box.count(3);
  assert.deepEqual(got.map((m) => m.name), ['a', 'b', 'c']);
  assert.deepEqual(got.map((m) => m.serial), result.serials);
});

inBothFormats('fifty messages that were queued before the connection arrive in order', async ({ connected, realtime }) => {
  const name = unique('order');
  const box = await subscribed((await connected()).channels.get(name));
  const publisher = realtime().channels.get(name); // not connected yet
  const results = await soon(
    Promise.all(Array.from({ length: 50 }, (_, i) => publisher.publish('n', i.toString()))),
    'all publishes',
  );
  const got = await box.count(50);
  assert.deepEqual(got.map((m) => m.data), Array.from({ length: 50 }, (_, i) => i.toString()));
  assert.deepEqual(got.map((m) => m.serial), results.map((r) => r.serials[0]));
});

// RTL6c1, RTL6c5
inBothFormats('publishing needs no attachment', async ({ connected }) => {
  const name = unique('transient');
  const box = await subscribed((await connected()).channels.get(name));
  const channel = (await connected()).channels.get(name);
  await soon(channel.publish('a', 'b'), 'a publish');
  assert.equal(channel.state, 'initialized');
  assert.equal((await box.count(1))[0].data, 'b');
});

// RTL6e1, RTL6g2-3
inBothFormats('a publisher may name only clients that it may be', async ({ connected }) => {
  const name = unique('clients');
  const box = await subscribed((await connected()).channels.get(name));
  const withKey = (await connected()).channels.get(name);
  await soon(withKey.publish({ name: '1', clientId: 'anybody' }), 'a publish');
  const wildcard = (await connected({ token: jwt({ clientId: '*' }) })).channels.get(name);
  await soon(wildcard.publish({ name: '2', clientId: 'somebody' }), 'a publish');
  const bob = (await connected({ token: jwt({ clientId: 'bob' }) })).channels.get(name);
  await soon(bob.publish({ name: '3', clientId: 'bob' }), 'a publish');
  await soon(bob.publish({ name: '4' }), 'a publish');
  await failsWith(bob.publish({ name: 'x', clientId: 'alice' }), 40012, 400);
  const anonymous = (await connected({ token: jwt() })).channels.get(name);
  await failsWith(anonymous.publish({ name: 'x', clientId: 'alice' }), 40012, 400);
  await soon(anonymous.publish({ name: '5' }), 'a publish');
  assert.deepEqual(
    (await box.count(5)).map((m) => [m.name, m.clientId ?? null]),
    [['1', 'anybody'], ['2', 'somebody'], ['3', 'bob'], ['4', 'bob'], ['5', null]],
  );
});

// CD2c, RSL1i
inBothFormats('the server refuses what is too large, also from a client that does not look', async ({ connected }) => {
  const client = await connected();
  const channel = client.channels.get(unique('large'));
  const box = await subscribed(channel);
  await failsWith(channel.publish('large', 'x'.repeat(65537)), 40009);
  client.options.maxMessageSize = 1 << 20; // now the client does not look
  await failsWith(channel.publish('large', 'x'.repeat(65537)), 40009, 413);
  await failsWith(channel.publish('large', Buffer.alloc(65537)), 40009, 413);
  await soon(channel.publish('12345', 'x'.repeat(65536 - 5)), 'a publish that just fits');
  assert.equal((await box.count(1))[0].data.length, 65531);
});

inBothFormats('a refused publish disturbs no other', async ({ connected }) => {
  const client = await connected();
  const channel = client.channels.get(unique('refused'));
  const box = await subscribed(channel);
  const outcomes = await soon(
    Promise.allSettled([
      channel.publish('1', ''),
      channel.publish({ name: 'x', extras: { impossible: true } }),
      channel.publish('2', ''),
      channel.publish({ name: 'x', id: '' , data: '', extras: { headers: { deep: {} } } }),
      channel.publish('3', ''),
    ]),
    'all outcomes',
  );
  assert.deepEqual(outcomes.map((o) => o.status), ['fulfilled', 'rejected', 'fulfilled', 'rejected', 'fulfilled']);
  assert.equal(outcomes[1].reason.code, 40032);
  assert.deepEqual((await box.count(3)).map((m) => m.name), ['1', '2', '3']);
  assert.equal(client.connection.state, 'connected');
  assert.equal(channel.state, 'attached');
});

// RSL1k2, RSL1k5
inBothFormats('a message with an id that was used is accepted and not delivered again', async ({ connected, rest }) => {
  const name = unique('idempotent');
  const channel = (await connected()).channels.get(name);
  const box = await subscribed(channel);
  const id = unique('id');
  const first = await soon(channel.publish({ id, name: 'a', data: '1' }), 'a publish');
  const second = await soon(channel.publish({ id, name: 'a', data: '1' }), 'a publish');
  const third = await soon(rest().channels.get(name).publish({ id, name: 'a', data: '1' }), 'a publish');
  assert.deepEqual(second.serials, first.serials);
  assert.deepEqual(third.serials, first.serials);
  await soon(channel.publish('end', ''), 'a publish');
  assert.deepEqual((await box.count(2)).map((m) => m.name), ['a', 'end']);
});

// RSL5a
inBothFormats('an encrypted channel is opaque to the server', async ({ connected, rest }) => {
  const name = unique('cipher');
  const cipher = { key: randomBytes(32).toString('base64') };
  const channel = (await connected()).channels.get(name, { cipher });
  const box = await subscribed(channel);
  const plain = await subscribed((await connected()).channels.get(name));
  const secrets = ['text', { an: 'object' }, Buffer.from([1, 2, 3]), ''];
  for (const data of secrets) await soon(channel.publish('secret', data), 'a publish');
  const got = await box.count(secrets.length);
  secrets.forEach((data, i) => same(got[i].data, data, `secret ${i}`));
  for (const m of await plain.count(secrets.length)) {
    assert.match(m.encoding, /cipher\+aes-256-cbc$/);
    assert.ok(Buffer.isBuffer(m.data));
  }
  const page = await soon(rest().channels.get(name, { cipher }).history({ direction: 'forwards' }), 'history');
  secrets.forEach((data, i) => same(page.items[i].data, data, `secret ${i} of the history`));
});

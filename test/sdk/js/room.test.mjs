// A LetShare room that is a channel too: clients of both kinds talk to each other.

import assert from 'node:assert/strict';
import WebSocket from 'ws';
import { host, inBothFormats, inbox, port, roomTokens, soon, subscribed } from './helpers.mjs';

const room = '测试 room-1';

/** A client of LetShare's own protocol. */
async function member(token, id) {
  const socket = new WebSocket(`ws://${host}:${port}/ws?token=${token}&userId=${encodeURIComponent(id)}`);
  const frames = inbox();
  socket.on('message', (data, isBinary) => {
    assert.ok(!isBinary);
    frames.listener(JSON.parse(data.toString()));
  });
  await soon(new Promise((resolve, reject) => socket.once('open', resolve).once('error', reject)), `member ${id}`);
  let read = 0;
  const client = {
    id,
    send: (frame) => socket.send(JSON.stringify(frame)),
    /** The next frame. */
    next: async () => (await frames.count(++read))[read - 1],
    async join() {
      for (const event of [`signal:${id}`, 'signal:all']) {
        client.send({ type: 'subscribe', channel: room, event });
        const answer = await client.next();
        assert.deepEqual([answer.type, answer.channel, answer.event], ['subscribed', room, event]);
      }
    },
    async leave() {
      client.send({ type: 'unsubscribe', channel: room });
      assert.equal((await client.next()).type, 'unsubscribed');
    },
    signal: (event, data) => client.send({ type: 'publish', channel: room, event, data }),
    close: () => soon(new Promise((resolve) => socket.once('close', resolve).close()), 'close'),
  };
  return client;
}

inBothFormats('LetShare clients and an SDK client talk in one room', async ({ connected }) => {
  const anna = await member(roomTokens[0], 'anna:a1b2c3');
  const ben = await member(roomTokens[1], 'ben:d4e5f6');
  try {
    await anna.join();
    await ben.join();
    const sdk = await connected({ clientId: 'sdk:012345' });
    const channel = sdk.channels.get(room);
    const own = await subscribed(channel, 'signal:sdk:012345');
    const all = await subscribed(channel, 'signal:all');

    // From a member to everybody: the other member and the SDK client hear it, the member does not.
    anna.signal('signal:all', { type: 'discover', text: '你好', big: 12345 });
    const heard = await ben.next();
    assert.deepEqual([heard.type, heard.channel, heard.event], ['message', room, 'signal:all']);
    assert.deepEqual(heard.data, { type: 'discover', text: '你好', big: 12345, from: 'anna:a1b2c3' });
    const message = (await all.count(1))[0];
    assert.equal(message.name, 'signal:all');
    assert.deepEqual(message.data, { type: 'discover', text: '你好', big: 12345, from: 'anna:a1b2c3' });
    assert.equal(message.clientId, 'anna');

    // From a member to one: another member, then the SDK client.
    anna.signal('signal:ben:d4e5f6', { type: 'offer', sdp: 'v=0' });
    const offer = await ben.next();
    assert.deepEqual([offer.event, offer.data], ['signal:ben:d4e5f6', { type: 'offer', sdp: 'v=0', from: 'anna:a1b2c3' }]);
    ben.signal('signal:sdk:012345', { type: 'candidate', from: 'ben:d4e5f6' });
    const candidate = (await own.count(1))[0];
    assert.deepEqual(candidate.data, { type: 'candidate', from: 'ben:d4e5f6' });
    assert.equal(candidate.clientId, 'ben');

    // From the SDK client to everybody, and to one member only.
    await soon(channel.publish('signal:all', { type: 'discover', from: 'sdk:012345' }), 'a publish');
    for (const m of [anna, ben]) {
      const frame = await m.next();
      assert.deepEqual([frame.type, frame.event, frame.data], ['message', 'signal:all', { type: 'discover', from: 'sdk:012345' }]);
    }
    await soon(channel.publish('signal:anna:a1b2c3', { type: 'answer', from: 'sdk:012345' }), 'a publish');
    const answer = await anna.next();
    assert.deepEqual([answer.event, answer.data], ['signal:anna:a1b2c3', { type: 'answer', from: 'sdk:012345' }]);

    // The directed ones went nowhere else: the next thing that each hears is this.
    anna.signal('signal:all', { type: 'end' });
    assert.equal((await ben.next()).data.type, 'end');
    assert.equal((await all.count(3))[2].data.type, 'end');
    assert.equal(own.messages.length, 1);

    await anna.leave();
    await soon(channel.publish('signal:all', { type: 'late' }), 'a publish');
    assert.equal((await ben.next()).data.type, 'late');
    anna.send({ type: 'subscribe', channel: room, event: 'signal:all' });
    assert.equal((await anna.next()).type, 'subscribed', 'nothing was heard meanwhile');
    await anna.leave();
  } finally {
    await anna.close();
    await ben.close();
  }
});

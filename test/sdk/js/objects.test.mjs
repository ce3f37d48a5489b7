// LiveObjects: what one client changes others see, and who comes later as well.

import assert from 'node:assert/strict';
import { LiveCounter, LiveMap, LiveObjects } from 'ably/liveobjects';
import { inBothFormats, patience, reaches, soon, unique } from './helpers.mjs';

const modes = ['OBJECT_SUBSCRIBE', 'OBJECT_PUBLISH'];

/** Attaches a client to a channel and returns its root, synchronized. */
async function rootOf(client, name) {
  return soon(client.channels.get(name, { modes }).object.get(), 'the objects');
}

inBothFormats('clients share maps and counters', async ({ connected }) => {
  const name = unique('objects');
  const root = async () => rootOf(await connected({ plugins: { LiveObjects } }), name);
  const mine = await root();
  const theirs = await root();
  await soon(mine.set('votes', LiveMap.create({ yes: LiveCounter.create(1), text: 'really?', bytes: Buffer.from([0, 255]) })), 'the map');
  await soon(
    new Promise((resolve) => {
      const seen = () => theirs.get('votes').get('yes').value() === 3 && resolve();
      theirs.subscribe(seen);
      mine.get('votes').get('yes').increment(2).then(seen);
    }),
    'what the other did',
  );
  await soon(theirs.get('votes').remove('bytes'), 'the removal');
  const late = await root();
  assert.deepEqual(late.compact(), { votes: { yes: 3, text: 'really?' } });
});

/** Waits until a root is as it should be. */
async function becomes(root, want) {
  const end = Date.now() + patience / 2;
  while (JSON.stringify(root.compactJson()) !== JSON.stringify(want)) {
    assert.ok(Date.now() < end, `it is ${JSON.stringify(root.compactJson())}, not ${JSON.stringify(want)}`);
    await new Promise((done) => setTimeout(done, 20));
  }
}

inBothFormats('what several do at once adds up, and REST has it and changes it', async ({ connected, rest }) => {
  const name = unique('objects');
  const plugins = { LiveObjects };
  const [mine, yours] = [await rootOf(await connected({ plugins }), name), await rootOf(await connected({ plugins }), name)];
  await soon(mine.set('up', LiveCounter.create(1)), 'the counter');
  await becomes(yours, { up: 1 });
  await Promise.all([soon(mine.get('up').increment(2), 'one increment'), soon(yours.get('up').increment(-5), 'the other')]);
  await becomes(mine, { up: -2 });
  await becomes(yours, { up: -2 });
  const stored = rest({ plugins }).channels.get(name);
  assert.deepEqual(await soon(stored.object.get(), 'the objects over REST'), { up: -2 });
  await soon(stored.object.publish({ path: 'up', counterInc: { number: 10 } }), 'the operation over REST');
  await becomes(mine, { up: 8 });
});

inBothFormats('who was away is told the objects when it comes back', async ({ connected }) => {
  const name = unique('objects');
  const plugins = { LiveObjects };
  const [one, two] = [await connected({ plugins }), await connected({ plugins })];
  const [mine, yours] = [await rootOf(one, name), await rootOf(two, name)];
  await soon(mine.set('a', 1), 'a value');
  await becomes(yours, { a: 1 });
  two.connection.close();
  await reaches(two.connection, 'closed');
  await soon(mine.set('a', 2), 'a later value');
  await soon(mine.set('b', 'x'), 'another');
  two.connect();
  await reaches(two.connection, 'connected');
  await becomes(await rootOf(two, name), { a: 2, b: 'x' });
});

inBothFormats('without the right to publish objects nothing is changed', async ({ connected, rest }) => {
  const name = unique('objects');
  const token = await soon(rest().auth.requestToken({ capability: { '*': ['object-subscribe'] } }), 'the token');
  const reader = await connected({ token: token.token, plugins: { LiveObjects } });
  const channel = reader.channels.get(name, { modes: ['OBJECT_SUBSCRIBE'] });
  const root = await soon(channel.object.get(), 'the objects');
  assert.deepEqual(root.compact(), {});
  await assert.rejects(async () => root.set('k', 'v'));
  const answer = await soon(rest({ token: token.token }).request('POST', `/channels/${name}/object`, 2, null, { path: '', mapSet: { key: 'k', value: { string: 'v' } } }), 'the answer');
  assert.deepEqual([answer.statusCode, answer.errorCode], [401, 40160]);
});

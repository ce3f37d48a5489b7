// LiveObjects: what one client changes others see, and who comes later as well.

import assert from 'node:assert/strict';
import { LiveCounter, LiveMap, LiveObjects } from 'ably/liveobjects';
import { inBothFormats, soon, unique } from './helpers.mjs';

const modes = ['OBJECT_SUBSCRIBE', 'OBJECT_PUBLISH'];

inBothFormats('clients share maps and counters', async ({ connected }) => {
  const name = unique('objects');
  const root = async () => {
    const client = await connected({ plugins: { LiveObjects } });
    return soon(client.channels.get(name, { modes }).object.get(), 'the objects');
  };
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

// What cannot be done to messages yet says so, and where it may not be done at all.

import assert from 'node:assert/strict';
import { failsWith, httpURL, inBothFormats, soon } from './helpers.mjs';

inBothFormats('updates, deletes, appends and annotations are refused with a reason', async ({ rest, connected }) => {
  const response = await fetch(`${httpURL}/apps`, {
    method: 'POST',
    headers: { 'Content-Type': 'application/json' },
    body: JSON.stringify({
      keys: [{}, { capability: JSON.stringify({ '*': ['publish', 'subscribe', 'history'] }) }],
      namespaces: [{ id: 'mutable', mutableMessages: true }],
    }),
  });
  assert.equal(response.status, 201);
  const [all, publisher] = (await response.json()).keys.map((k) => k.keyStr);
  for (const [key, name, code, statusCode] of [
    [all, 'plain', 93002, 400],
    [all, 'mutable:a', 40000, 400],
    [publisher, 'mutable:a', 40160, 401],
  ]) {
    const realtime = await connected({ key });
    for (const client of [realtime, rest({ key })]) {
      const channel = client.channels.get(name);
      await soon(channel.publish('a', 'b'), 'a publish');
      const { items: [message] } = await soon(rest({ key: all }).channels.get(name).history({ limit: 1 }), 'history');
      await failsWith(channel.updateMessage({ ...message, data: 'c' }), code, statusCode);
      await failsWith(channel.deleteMessage(message), code, statusCode);
      await failsWith(channel.appendMessage({ ...message, data: 'c' }), code, statusCode);
      await failsWith(channel.annotations.publish(message, { type: 'reaction:total.v1' }), code, statusCode);
      await failsWith(channel.annotations.get(message, {}), code, statusCode);
    }
  }
});

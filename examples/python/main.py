import asyncio
import os

from ably import AblyRealtime


async def main():
    client = AblyRealtime(
        key="letshr.local0:letshare-local-key-published-do-not-deploy",  # printed by the server
        endpoint="localhost:" + os.environ.get("PORT", "8080"),  # this SDK wants the port here
        tls=False,
    )
    channel = client.channels.get("demo")
    received = asyncio.get_running_loop().create_future()
    await channel.subscribe("greeting", lambda message: received.set_result(message))
    await channel.publish("greeting", {"text": "hello from Python"})

    message = await asyncio.wait_for(received, 10)
    print(message.name, message.data["text"])
    await client.close()


asyncio.run(main())

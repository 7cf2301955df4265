"""A program that calls trio.run() without the guard."""

import trio

import trio_dirty


class Echo(trio_dirty.App):
    def echo(self, value: int) -> int:
        return value


async def main() -> None:
    async with trio_dirty.open_pool([Echo], workers=2) as pool:
        await pool.run_sync(Echo.echo, 1)


trio.run(main)

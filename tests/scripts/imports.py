"""A program that prints, what of trio and its like a worker has imported."""

if __name__ == "__main__":
    import trio

    import trio_dirty

    async def main() -> None:
        async with trio_dirty.open_pool(["apps_bad:Bad"], workers=1) as pool:
            modules = await pool.execute("apps_bad:Bad", "modules")
        assert "trio_dirty" in modules
        unwanted = {"trio", "trio_parallel", "asyncio", "pytest", "psutil"}
        print(sorted(unwanted.intersection(modules)))

    trio.run(main)

import { execFileSync } from 'node:child_process'
import { chmodSync, existsSync, mkdirSync, readdirSync, rmSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { expect, test } from 'vitest'
import { isAlive, makeClone, nothingLeft, parentOf, postgresOf, served } from '../clone.ts'

test('a first start that is cut off does not break the next, nor do two at once', async () => {
  const clone = await makeClone()
  const cut = clone.dev()
  const unfinished = () =>
    existsSync(dirname(clone.data)) && readdirSync(dirname(clone.data)).some((name) => name.startsWith('new-'))
  await expect.poll(unfinished, { interval: 10 }).toBe(true)
  const npm = cut.process.pid
  const dev = execFileSync('ps', ['-A', '-o', 'pid=,ppid='], { encoding: 'utf8' })
    .split('\n')
    .map((line) => line.trim().split(/\s+/).map(Number))
    .find(([, parent]) => parent === npm)?.[0]
  process.kill(dev as number, 'SIGKILL')
  await cut.exited
  await expect.poll(unfinished).toBe(false)

  const both = [clone.dev([], { PORT: '0' }), clone.dev([], { PORT: '0' })]
  const codes = both.map(({ exited }, i) => exited.then(() => i))
  const loser = await Promise.race(codes)
  expect(both[loser]?.stderr()).toMatch(/^Another `npm run dev` uses the data in .*\n$/)
  const winner = both[1 - loser]
  if (winner) await served(winner)
  winner?.process.kill('SIGTERM')
  await winner?.exited
})

test('data that cannot be used are told in one sentence, which says how to go on', async () => {
  const clone = await makeClone()
  const dev = clone.dev()
  await served(dev)
  const pid = postgresOf(clone.data)
  process.kill(parentOf(pid), 'SIGKILL')
  await dev.exited
  await nothingLeft(pid, dev.origin)

  // The number of a server that is long gone, and now that of another process of the same user.
  const other = clone.run('sleep', ['600'])
  const lock = join(clone.data, 'postmaster.pid')
  writeFileSync(lock, `${other.process.pid}\n${clone.data}\n0\n1\n\n127.0.0.1\n1 1\n`)
  const stale = clone.dev()
  await served(stale)
  expect(isAlive(other.process.pid as number)).toBe(true)
  const refused = clone.dev(['--reset'], { PORT: '0' })
  expect(await refused.exited).toBe(1)
  expect(refused.stderr()).toMatch(/^Another `npm run dev` uses the data in .*\n$/)
  stale.process.kill('SIGTERM')
  await stale.exited
  await expect.poll(() => existsSync(lock)).toBe(false)

  const version = join(clone.data, 'PG_VERSION')
  writeFileSync(version, '17\n')
  const old = clone.dev()
  expect(await old.exited).toBe(1)
  expect(old.stderr()).toMatch(/^The data in .* are from PostgreSQL 17, and this is 18\. .* npm run dev -- --reset\n$/)
  writeFileSync(version, '18\n')
  rmSync(join(clone.data, 'users-api.password'))
  const lost = clone.dev()
  expect(await lost.exited).toBe(1)
  expect(lost.stderr()).toMatch(/^The data in .* users-api.password is missing\. .* npm run dev -- --reset\n$/)
})

test('a folder that cannot be written, and an .env that cannot be read, are told in one sentence', async () => {
  const clone = await makeClone()
  chmodSync(clone.folder, 0o555)
  const dev = clone.dev()
  expect(await dev.exited).toBe(1)
  expect(dev.stderr()).toMatch(/^EACCES: permission denied, mkdir '.*\.data'\n$/)
  chmodSync(clone.folder, 0o755)
  mkdirSync(clone.path('.env'))
  const unreadable = clone.dev()
  expect(await unreadable.exited).toBe(1)
  expect(unreadable.stderr()).toMatch(/^The file \.env cannot be read: .*\n$/)
})

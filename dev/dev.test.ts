import { execFileSync } from 'node:child_process'
import { existsSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs'
import { expect, test } from 'vitest'
import { type Clone, isAlive, makeClone, nothingLeft, parentOf, postgresOf, served } from '../test/clone.ts'

const HEALTH = 'src/http/base.ts'
const ALICE = { username: 'Alice', email: 'alice@example.com' }

/** Makes the answer of /livez say `status`. */
const saying = (clone: Clone, status: string) =>
  readFileSync(clone.path(HEALTH), 'utf8').replaceAll(/status: '\w+'/g, `status: '${status}'`)

/** Writes as Vim, JetBrains' editors and git do: another file takes the place of the old one. */
function replace(file: string, text: string) {
  writeFileSync(`${file}.new`, text)
  renameSync(`${file}.new`, file)
}

const livez = async (origin: string) => {
  const answer = await fetch(`${origin}/livez`).catch(() => undefined)
  return (await answer?.json()) as unknown
}

test('serves data that survives a restart, and every save reloads, also of a mistake that is mended', async () => {
  const clone = await makeClone()
  execFileSync('git', ['init', '--quiet'], { cwd: clone.folder })
  const git = (...args: string[]) =>
    execFileSync('git', ['-c', 'user.name=t', '-c', 'user.email=t@t', '-c', `safe.directory=*`, ...args], {
      cwd: clone.folder,
      stdio: 'pipe',
    })
  git('add', 'src', 'drizzle')
  git('commit', '--quiet', '--message', 'one')
  writeFileSync(clone.path(HEALTH), saying(clone, 'switched'))
  git('commit', '--quiet', '--all', '--message', 'two')
  git('switch', '--quiet', '--detach', 'HEAD~1')

  const first = clone.dev()
  const { origin } = first
  await served(first)
  expect(first.stdout()).toContain(`Data        ${clone.data}`)
  expect(first.stdout()).toContain(`curl ${origin}/users`)
  const init = { method: 'POST', headers: { 'content-type': 'application/json' }, body: JSON.stringify(ALICE) }
  expect((await fetch(`${origin}/users`, init)).status).toBe(201)

  const file = clone.path(HEALTH)
  const good = readFileSync(file, 'utf8')
  for (const status of ['renamed', 'again']) {
    replace(file, saying(clone, status))
    await expect.poll(() => livez(origin)).toEqual({ status })
  }
  execFileSync('sed', ['-i.bak', "s/'again'/'edited'/", file])
  await expect.poll(() => livez(origin)).toEqual({ status: 'edited' })
  replace(file, `${good} nonsense here`)
  await first.printed(/The API has ended \(exit code 1\)\. It starts again when a source is saved\./)
  replace(file, good)
  await expect.poll(() => livez(origin)).toEqual({ status: 'ok' })
  rmSync(`${file}.bak`)
  git('switch', '--quiet', '--detach', 'HEAD@{1}')
  await expect.poll(() => livez(origin)).toEqual({ status: 'switched' })

  const pid = postgresOf(clone.data)
  process.kill(parentOf(pid), 'SIGINT')
  expect(await first.exited).toBe(0)
  expect(isAlive(pid)).toBe(false)
  await nothingLeft(pid, origin)

  const second = clone.dev()
  await served(second)
  expect(await (await fetch(`${origin}/users`)).json()).toMatchObject({ users: [{ username: 'Alice' }] })
  second.process.kill('SIGTERM')
  await second.exited
  await expect.poll(() => existsSync(`${clone.data}/postmaster.pid`)).toBe(false)
})

test('a migration that is generated meanwhile is applied; without it, later, the way on is said, and works', async () => {
  const clone = await makeClone()
  const dev = clone.dev()
  await served(dev)
  const journal = clone.path('drizzle/meta/_journal.json')
  const before = readFileSync(journal, 'utf8')
  const { entries, ...rest } = JSON.parse(before)
  const entry = { ...entries[0], idx: 1, when: entries[0].when + 1, tag: '0001_more' }
  replace(journal, JSON.stringify({ ...rest, entries: [...entries, entry] }))
  await dev.printed(/The migrations could not be applied\..*\nIt tries again/)
  writeFileSync(clone.path('drizzle/0001_more.sql'), 'create table more (id int);')
  await dev.printed(/Migrations applied: 1\.[\s\S]*Migrations applied: 1\.[\s\S]*listening/)

  replace(journal, before)
  await dev.printed(/newer than this release[\s\S]*listening/)
  replace(journal, JSON.stringify({ ...rest, entries: [...entries, { ...entry, when: entries[0].when - 1 }] }))
  await dev.printed(/npm run dev -- --reset\nIt tries again[\s\S]*npm run dev -- --reset\nIt tries again/)
  dev.process.kill('SIGTERM')
  await dev.exited
  await expect.poll(() => existsSync(`${clone.data}/postmaster.pid`)).toBe(false)
  replace(journal, before)

  const reset = clone.dev(['--reset'])
  await served(reset)
  expect(await (await fetch(`${reset.origin}/users`)).json()).toMatchObject({ users: [] })
  const migrate = clone.run('npm', ['run', 'db:migrate'])
  expect(await migrate.exited).toBe(0)
  expect(migrate.stdout()).toContain(clone.data)
  expect(migrate.stdout()).toContain('The database is up to date.')
})

test.each(['SIGKILL', 'SIGHUP', 'SIGQUIT'] as const)('%s leaves nothing behind', async (signal) => {
  const clone = await makeClone()
  const dev = clone.dev()
  await served(dev)
  const pid = postgresOf(clone.data)
  process.kill(parentOf(pid), signal)
  await dev.exited
  await nothingLeft(pid, dev.origin)
  expect(existsSync(`${clone.data}/postmaster.pid`)).toBe(false)
})

test.each([
  ['SIGKILL', 'gives way to it'],
  ['SIGKILL', 'waits beside it'],
  ['SIGTERM', 'waits beside it'],
] as const)('%s for npm leaves nothing behind, where its shell %s', async (signal, manner) => {
  const clone = await makeClone()
  const waits = manner === 'waits beside it'
  const shell = clone.path('shell')
  // npm runs it as `shell -c COMMAND`.
  writeFileSync(shell, waits ? '#!/bin/sh\neval "$2"\nexit $?\n' : '#!/bin/sh\neval "exec $2"\n', { mode: 0o755 })
  const dev = clone.dev([], { npm_config_script_shell: shell })
  await served(dev)
  const pid = postgresOf(clone.data)
  const npm = dev.process.pid as number
  const parent = parentOf(parentOf(pid))
  expect(waits ? parentOf(parent) : parent).toBe(npm)
  process.kill(npm, signal)
  await nothingLeft(pid, dev.origin)
  expect(existsSync(`${clone.data}/postmaster.pid`)).toBe(false)
})

test('a reader of the output that goes away leaves nothing behind', async () => {
  const clone = await makeClone()
  const head = clone.run('sh', ['-c', 'npm run dev | head -7'], { PORT: String(clone.port) })
  const pid = await expect
    .poll(() => existsSync(`${clone.data}/postmaster.pid`))
    .toBe(true)
    .then(() => postgresOf(clone.data))
  expect(await head.exited).toBe(0)
  await nothingLeft(pid, `http://localhost:${clone.port}`)
})

test('PostgreSQL that ends is told, and ends the rest with exit code 1', async () => {
  const clone = await makeClone()
  const dev = clone.dev()
  await served(dev)
  const pid = postgresOf(clone.data)
  process.kill(pid, 'SIGKILL')
  expect(await dev.exited).toBe(1)
  expect(dev.stderr()).toContain('PostgreSQL has ended (SIGKILL)')
  await nothingLeft(pid, dev.origin)
})

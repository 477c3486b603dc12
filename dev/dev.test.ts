import { once } from 'node:events'
import { existsSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:net'
import { join } from 'node:path'
import { beforeEach, expect, test } from 'vitest'
import { createTestDatabase } from '../test/database.ts'
import { copyProject, type Running, run } from '../test/process.ts'
import { freePort } from './postgres.ts'

let folder: string
beforeEach(() => {
  folder = copyProject()
})

const dev = (env: Record<string, string>) => run(process.execPath, [join(folder, 'dev/dev.ts')], env)
const dataOf = async (running: Running) => (await running.printed(/Data +(\S+)/))[1] as string
const alive = (pid: number) => {
  try {
    return process.kill(pid, 0)
  } catch {
    return false
  }
}

test('serves with data that survives a restart, starts again when a source is mended, and leaves nothing running', async () => {
  const port = String(await freePort())
  const users = `http://localhost:${port}/users`
  const first = dev({ PORT: port })
  const data = await dataOf(first)
  await first.printed(/"msg":"listening"/)
  expect(first.output()).toContain(`curl -X POST ${users} -H "Content-Type: application/json" -d '{"username": "Alice"`)
  const body = JSON.stringify({ username: 'Alice', email: 'alice@example.com' })
  const created = await fetch(users, { method: 'POST', headers: { 'content-type': 'application/json' }, body })
  expect(created.status).toBe(201)

  const file = join(folder, 'src/http/health.ts')
  const source = readFileSync(file, 'utf8')
  writeFileSync(file, `${source} nonsense here`)
  await first.printed(/SyntaxError/)
  writeFileSync(file, source.replaceAll("status: 'ok'", "status: 'changed'"))
  await first.printed(/("msg":"listening"[\s\S]*){2}/)
  expect(await (await fetch(`http://localhost:${port}/livez`)).json()).toEqual({ status: 'changed' })

  const postgres = Number(readFileSync(join(data, 'postmaster.pid'), 'utf8').split('\n')[0])
  expect(alive(postgres)).toBe(true)
  first.process.kill('SIGINT')
  expect(await first.exited).toBe(0)
  expect(alive(postgres)).toBe(false)
  await expect(fetch(users)).rejects.toThrow()

  const second = dev({ PORT: port })
  await second.printed(/"msg":"listening"/)
  expect(await (await fetch(users)).json()).toMatchObject({ users: [{ username: 'Alice' }] })
  second.process.kill('SIGTERM')
  expect(await second.exited).toBe(0)

  writeFileSync(join(data, 'PG_VERSION'), '17\n')
  const third = dev({ PORT: port })
  expect(await third.exited).toBe(1)
  expect(third.stderr()).toMatch(/^The data in .* is from PostgreSQL 17, and this is 18: .*\n$/)
  expect(existsSync(join(data, 'postmaster.pid'))).toBe(false)
  rmSync(data, { recursive: true, force: true })
})

test('a port that is taken is one sentence, and nothing is left running', async () => {
  const other = createServer().listen(0)
  await once(other, 'listening')
  const { port } = other.address() as { port: number }
  const refused = dev({ PORT: String(port) })
  expect(await refused.exited).toBe(1)
  expect(refused.stderr()).toMatch(new RegExp(`^Port ${port} is taken: .*\n$`))
  expect(existsSync(join(folder, '.data'))).toBe(false)
  other.close()
})

test('a setting that is wrong is one sentence and exit code 2', async () => {
  const wrong = dev({ PORT: 'abc' })
  expect(await wrong.exited).toBe(2)
  expect(wrong.stderr()).toMatch(/^PORT must be .*\n$/)
})

test('npm run dev reads .env, and ends everything when npm gets a SIGTERM', async () => {
  const port = await freePort()
  writeFileSync(join(folder, '.env'), `PORT=${port}\n`)
  const npm = run('npm', ['--prefix', folder, 'run', 'dev'])
  const data = await dataOf(npm)
  await npm.printed(new RegExp(`"port":${port},"msg":"listening"`))
  npm.process.kill('SIGTERM')
  await expect.poll(() => existsSync(join(data, 'postmaster.pid')), { timeout: 30_000 }).toBe(false)
  await npm.exited
  await expect(fetch(`http://localhost:${port}/livez`)).rejects.toThrow()
  rmSync(data, { recursive: true, force: true })
})

test('uses DATABASE_URL instead where it is set', async () => {
  const database = await createTestDatabase({ empty: true })
  const port = String(await freePort())
  const running = dev({ PORT: port, DATABASE_URL: database.url })
  await running.printed(/"msg":"listening"/)
  expect((await fetch(`http://localhost:${port}/readyz`)).status).toBe(200)
  expect(existsSync(join(folder, '.data'))).toBe(false)
  running.process.kill('SIGINT')
  expect(await running.exited).toBe(0)
  await database.drop()
})

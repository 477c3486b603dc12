import { execFileSync, type StdioOptions, spawn } from 'node:child_process'
import { once } from 'node:events'
import { constants, mkdtempSync, openSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { expect, onTestFinished, test, vi } from 'vitest'
import { freePort } from '../../dev/postgres.ts'
import { ROOT } from '../../test/process.ts'

/** Their lines are more than may wait to be written and than a pipe holds. */
const REQUESTS = 4000
const CLIENTS = 20
const LONG_PATH = `/${'x'.repeat(1000)}`

/** The service with a log of its own, without a database. */
async function serve(stdout: number | 'pipe') {
  const port = await freePort()
  const stdio: StdioOptions = ['ignore', stdout, 'inherit']
  const env = { ...process.env, PORT: String(port), HOST: '127.0.0.1', LOG_LEVEL: 'debug', DB_PORT: '1' }
  const times = { STARTUP_WAIT_MS: '0', DRAIN_DELAY_MS: '0' }
  const child = spawn(process.execPath, ['src/main.ts'], { cwd: ROOT, stdio, env: { ...env, ...times } })
  onTestFinished(() => void child.kill('SIGKILL'))
  const exited = once(child, 'exit')
  const get = async (path: string) => (await fetch(`http://127.0.0.1:${port}${path}`)).status
  await vi.waitFor(() => get('/livez'), { timeout: 60_000 })
  return {
    /** Makes a line of the log with each request. */
    async load() {
      const client = async () => {
        for (let i = 0; i < REQUESTS / CLIENTS; i++) expect(await get(LONG_PATH)).toBe(404)
      }
      await Promise.all(Array.from({ length: CLIENTS }, client))
    },
    stdout: child.stdout,
    async stop() {
      child.kill('SIGTERM')
      expect(await exited).toEqual([0, null])
    },
  }
}

function folder() {
  const path = mkdtempSync(join(tmpdir(), 'users-api-log-'))
  onTestFinished(() => rmSync(path, { recursive: true }))
  return path
}

test('a log that cannot be written costs no request, and does not keep the process from ending', async () => {
  const path = join(folder(), 'log')
  writeFileSync(path, '')
  // As on a full disk, each write fails.
  const api = await serve(openSync(path, constants.O_RDONLY))
  await api.load()
  await api.stop()
})

test('a pipe that nobody reads costs no request, and does not keep the process from ending', async () => {
  const path = join(folder(), 'pipe')
  execFileSync('mkfifo', [path])
  const api = await serve(openSync(path, constants.O_RDWR))
  await api.load()
  await api.stop()
})

test('lines that are lost while nobody reads are counted, and told of when writing works again', async () => {
  const api = await serve('pipe')
  await api.load()
  let log = ''
  api.stdout?.setEncoding('utf8').on('data', (text) => {
    log += text
  })
  await vi.waitFor(() => expect(log).toMatch(/were lost"\}\n$/), { timeout: 30_000 })
  await api.stop()
  const lines = log
    .trimEnd()
    .split('\n')
    .map((line) => JSON.parse(line))
  const told = lines.filter(({ msg }) => msg === 'lines of the log were lost')
  const lost = told.reduce((sum, line) => sum + line.lines, 0)
  expect(lost).toBeGreaterThan(0)
  const written = lines.filter(({ msg }) => msg === 'request').length
  expect(written + lost).toBeGreaterThanOrEqual(REQUESTS)
})

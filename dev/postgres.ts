import type { ChildProcess, StdioOptions } from 'node:child_process'
import { randomInt } from 'node:crypto'
import { once } from 'node:events'
import { chownSync, existsSync, mkdtempSync, rmSync } from 'node:fs'
import { createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { assertUnused, openData, urlOf } from './data.ts'
import { withoutPostgres } from './environment.ts'
import { aloud, DevError, type Say } from './messages.ts'
import { endChild, startChild } from './processes.ts'
import { type Account, accountFor, findPrograms, mayEnter } from './programs.ts'

export type PostgresOptions = {
  /** Where the data is kept; a temporary folder, gone after `stop`, if left out. */
  dataDir?: string
  /** Settings of the server, by name. */
  settings?: Record<string, string | number>
  /** A free one if left out. */
  port?: number
  /** Told what is waited for, when that takes long. */
  say?: Say
}

/** A PostgreSQL server of our own, on a free port of 127.0.0.1. */
export type Postgres = {
  url: string
  port: number
  dataDir: string
  process: ChildProcess
  /** The end of what it has logged. */
  log(): string
  /** Ends it and removes a temporary folder. */
  stop(): Promise<void>
}

const START_TIMEOUT_MS = 30_000
const STOP_TIMEOUT_MS = 10_000
const LOG_LENGTH = 4000

/** The ports that no system gives to connections of its own: nothing takes one while its server is away for a moment. */
const [FIRST_PORT, END_PORT] = [10_000, 30_000]

export async function freePort(): Promise<number> {
  const port = randomInt(FIRST_PORT, END_PORT)
  const server = createServer().listen(port, '127.0.0.1')
  try {
    await once(server, 'listening')
  } catch (error) {
    // Windows keeps some for itself.
    if (error instanceof Error && 'code' in error && /^(EADDRINUSE|EACCES)$/.test(String(error.code))) return freePort()
    throw error
  }
  server.close()
  await once(server, 'close')
  return port
}

/** A folder of its own for the account. @throws DevError when that one cannot come there */
function temporaryFolder(as: Account): string {
  const folder = mkdtempSync(join(tmpdir(), 'users-api-'))
  if (as.uid !== undefined) chownSync(folder, as.uid, as.gid)
  if (mayEnter(folder, as)) return folder
  rmSync(folder, { recursive: true })
  throw new DevError(`PostgreSQL, which does not run as root, may not enter ${tmpdir()}: set TMPDIR to another folder.`)
}

/**
 * Starts PostgreSQL, with new data where `dataDir` has none.
 * @throws DevError when it cannot start; nothing is left running then
 */
export async function startPostgres(options: PostgresOptions = {}): Promise<Postgres> {
  const { settings = {}, say = () => {} } = options
  const as = accountFor(options.dataDir ?? '')
  const programs = findPrograms(as)
  const temporary = options.dataDir === undefined ? temporaryFolder(as) : undefined
  const dataDir = options.dataDir ?? join(temporary as string, 'data')
  let server: ChildProcess | undefined
  async function stop() {
    if (server) await endChild(server, 'SIGINT', STOP_TIMEOUT_MS)
    if (temporary) rmSync(temporary, { recursive: true, force: true })
  }
  try {
    if (!existsSync(dataDir)) say(`Making a new database in ${dataDir}`)
    const env = withoutPostgres(process.env)
    const password = await openData(programs, dataDir, as, env)
    const port = options.port ?? (await freePort())
    const flags = Object.entries({ unix_socket_directories: '', ...settings, port, listen_addresses: '127.0.0.1' })
    const args = ['-D', dataDir, ...flags.flatMap(([name, value]) => ['-c', `${name}=${value}`])]
    const stdio: StdioOptions = ['ignore', 'ignore', 'pipe']
    server = startChild(join(programs.home, 'bin/postgres'), args, { ...as, env, stdio, temporary })
    const log = await ready(server, say)
    return { url: urlOf(password, port), port, dataDir, process: server, log, stop }
  } catch (error) {
    await stop()
    // Two starts at the same moment: both found the data unused.
    if (server) assertUnused(dataDir)
    throw error
  }
}

/** Waits until the server can be used. @returns what gives the end of its log @throws DevError when it cannot be used */
async function ready(server: ChildProcess, say: Say): Promise<() => string> {
  const { promise, resolve, reject } = Promise.withResolvers<void>()
  let text = ''
  const log = () => text.trim()
  server.stderr?.setEncoding('utf8').on('data', (chunk: string) => {
    text = (text + chunk).slice(-LOG_LENGTH)
    if (/database system is ready to accept (read-only )?connections/.test(text)) resolve()
  })
  server.on('error', reject)
  server.on('close', () => reject(new DevError(`PostgreSQL did not start: ${log()}`)))
  const late = () => reject(new DevError(`PostgreSQL did not start in ${START_TIMEOUT_MS / 1000} s: ${log()}`))
  const timer = setTimeout(late, START_TIMEOUT_MS)
  try {
    await aloud(say, () => `PostgreSQL is still starting: ${log().split('\n').at(-1)}`, promise)
    return log
  } finally {
    clearTimeout(timer)
  }
}

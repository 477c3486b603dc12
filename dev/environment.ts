// What the settings of a person's shell and of the file .env mean for developing.
import { existsSync, readFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { parseEnv } from 'node:util'
import { settings } from '../src/config.ts'
import { DevError } from './messages.ts'

const FILE = fileURLToPath(new URL('../.env', import.meta.url))

/** Each of these says that a database of the person's own is meant: all but those of the API's role and of the pool. */
const DATABASE = settings
  .map(({ name }) => name)
  .filter((name) => /^(DATABASE_|DB_)/.test(name) && !/^DB_(API_|CONNECTIONS$)/.test(name))

/** The environment without the variables of PostgreSQL's own clients: they are meant for other databases. */
export const withoutPostgres = (env: NodeJS.ProcessEnv): NodeJS.ProcessEnv =>
  Object.fromEntries(Object.entries(env).filter(([name]) => !/^PG[A-Z]/.test(name)))

export type Environment = {
  env: NodeJS.ProcessEnv
  /** Which variables name a database, and where they were set; undefined if none does. */
  database: string | undefined
}

/**
 * The variables of the shell, and of .env where the shell has none of that name.
 * @throws DevError when .env cannot be read
 */
export function readEnvironment(shell = process.env, path = FILE): Environment {
  const env = withoutPostgres({ ...readFile(path), ...shell })
  const named = DATABASE.filter((name) => env[name])
  // The URL has everything, so the others do not count beside it.
  const used = named.includes('DATABASE_URL') ? ['DATABASE_URL'] : named
  const origin = (name: string) => `${name} in ${name in shell ? 'the environment' : '.env'}`
  return { env, database: used.length === 0 ? undefined : used.map(origin).join(', ') }
}

function readFile(path: string) {
  if (!existsSync(path)) return {}
  try {
    // Editors on Windows begin a file with a byte order mark, which would become part of the first name.
    return parseEnv(readFileSync(path, 'utf8').replace(/^\uFEFF/, ''))
  } catch (error) {
    throw new DevError(`The file .env cannot be read: ${error instanceof Error ? error.message : error}`)
  }
}

// What the settings of a person's shell and of the file .env mean for developing.
import { existsSync, readFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { parseEnv } from 'node:util'
import { DevError } from './messages.ts'

const FILE = fileURLToPath(new URL('../.env', import.meta.url))

/** Each of these says that a database of the person's own is meant. */
const DATABASE = [
  'DATABASE_URL',
  'DB_HOST',
  'DB_PORT',
  'DB_NAME',
  'DB_USER',
  'DB_PASSWORD',
  'DB_PASSWORD_FILE',
  'DB_SSLMODE',
]

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
export function readEnvironment(): Environment {
  const file = readFile()
  const env = withoutPostgres({ ...file, ...process.env })
  const named = DATABASE.filter((name) => env[name])
  // The URL has everything, so the others do not count beside it.
  const used = named.includes('DATABASE_URL') ? ['DATABASE_URL'] : named
  const origin = (name: string) => `${name} in ${name in process.env ? 'the environment' : '.env'}`
  return { env, database: used.length === 0 ? undefined : used.map(origin).join(', ') }
}

function readFile() {
  if (!existsSync(FILE)) return {}
  try {
    return parseEnv(readFileSync(FILE, 'utf8'))
  } catch (error) {
    throw new DevError(`The file .env cannot be read: ${error instanceof Error ? error.message : error}`)
  }
}

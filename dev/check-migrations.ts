// Part of `npm run check`: what drizzle-kit noted of the tables with the last migration is what the sources say. It
// writes nothing, so that what is missing is missing the next time as well.
import { readFileSync } from 'node:fs'
import { isDeepStrictEqual } from 'node:util'
import { generateDrizzleJson } from 'drizzle-kit/api'
import config from '../drizzle.config.ts'

const fromRoot = (path: string) => new URL(path, new URL('..', import.meta.url))
const meta = (name: string) => JSON.parse(readFileSync(fromRoot(`drizzle/meta/${name}.json`), 'utf8'))

const { tag } = meta('_journal').entries.at(-1)
const noted = meta(`${tag.slice(0, 4)}_snapshot`)
const { id, prevId } = noted
const sources = await Promise.all((config.schema as string[]).map((path) => import(fromRoot(path).href)))
const said = { ...generateDrizzleJson(Object.assign({}, ...sources)), id, prevId }
// Through JSON, as what was noted.
if (!isDeepStrictEqual(JSON.parse(JSON.stringify(said)), noted)) {
  process.stderr.write('The tables have changed since the last migration: `npm run db:generate` writes the next.\n')
  process.exitCode = 1
}

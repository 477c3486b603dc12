import { hash } from 'node:crypto'
import { existsSync, readFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import type { Handler } from 'hono'
import type { Env } from './env.ts'

/** The files that pages need, and where the sources have them. A build puts all into `assets/` beside it, compressed as well. */
export const ASSETS = {
  'page.css': 'assets/page.css',
  'icon.svg': 'assets/icon.svg',
  'docs.js': 'assets/docs.js',
  'swagger-ui.css': 'node_modules/swagger-ui-dist/swagger-ui.css',
  'swagger-ui-bundle.js': 'node_modules/swagger-ui-dist/swagger-ui-bundle.js',
} as const

type AssetName = keyof typeof ASSETS

const isAsset = (name = ''): name is AssetName => Object.hasOwn(ASSETS, name)

function fileOf(name: AssetName): string {
  const built = new URL(`assets/${name}`, import.meta.url)
  return fileURLToPath(existsSync(built) ? built : new URL(`../../${ASSETS[name]}`, import.meta.url))
}

const paths: Partial<Record<AssetName, string>> = {}

/** The path of an asset. It names the content by a hash, made when it is first needed, so that browsers may keep it for ever. */
export function assetPath(name: AssetName): string {
  paths[name] ??= `/assets/${hash('sha256', readFileSync(fileOf(name))).slice(0, 12)}/${name}`
  return paths[name]
}

/** Serves `/assets/:hash/:name`. A path of another release gets what is there now, but not for long. */
export const serveAsset: Handler<Env> = async (c, next) => {
  const name = c.req.param('name')
  if (!isAsset(name)) return c.notFound()
  c.header('Cache-Control', c.req.path === assetPath(name) ? 'public, max-age=31536000, immutable' : 'no-cache')
  c.header('X-Content-Type-Options', 'nosniff')
  c.header('X-Request-Id', c.get('requestId'))
  // Loaded by the first who asks for a file: a start does not pay for it.
  const { serveStatic } = await import('@hono/node-server/serve-static')
  return serveStatic<Env>({ path: fileOf(name), precompressed: true })(c, next)
}

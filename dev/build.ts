// `npm run build`: the whole service in dist/, to be started as dist/main.js.
import { rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { build } from 'esbuild'
import { ASSETS } from '../src/http/assets.ts'
import { writeAssets } from './assets.ts'
import { filesOf, writeThirdParty } from './third-party.ts'
import { warm } from './warm.ts'

/**
 * V8's compiled code can only be taken by what is loaded after the cache was named: so a file of its own does that. Packages
 * that are CommonJS ask for Node's modules by `require`.
 */
const MAIN = `import { createRequire, enableCompileCache } from 'node:module'
globalThis.require = createRequire(import.meta.url)
enableCompileCache(import.meta.dirname + '/cache')
await import('./users-api.js')
`

/** Makes `main.js`, the service; what is not needed at its start is in files beside it, loaded when asked for. */
export async function bundle(outdir: string) {
  const result = await build({
    entryPoints: { 'users-api': 'src/main.ts' },
    outdir,
    bundle: true,
    splitting: true,
    platform: 'node',
    target: 'node24',
    format: 'esm',
    minify: true,
    sourcemap: true,
    metafile: true,
    // The Node adapter asks for HTTP/2, which is not served here and takes 6 ms of every start to load. The log is written
    // by this thread, and what pino brings for others takes 3 ms.
    alias: { 'node:http2': './dev/no-http2.ts', 'thread-stream': './dev/no-threads.ts' },
    logLevel: 'warning',
  })
  writeFileSync(join(outdir, 'main.js'), MAIN)
  return result
}

if (import.meta.main) {
  rmSync('dist', { recursive: true, force: true })
  const { metafile } = await bundle('dist')
  writeAssets('dist/assets')
  writeThirdParty('dist', [...filesOf(metafile), ...Object.values(ASSETS)])
  await warm('dist/main.js')
}

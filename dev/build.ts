// `npm run build`: the whole service in dist/, to be started as dist/main.js.
import { rmSync, writeFileSync } from 'node:fs'
import { build } from 'esbuild'
import { ASSETS } from '../src/http/assets.ts'
import { writeAssets } from './assets.ts'
import { filesOf, writeThirdParty } from './third-party.ts'
import { warm } from './warm.ts'

/** Makes `users-api.js`, the service; what only the other commands need is in files beside it, loaded when asked for. */
export const bundle = (outdir: string) =>
  build({
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
    // Packages that are CommonJS still ask for Node's modules by `require`.
    banner: { js: "import { createRequire } from 'node:module'; const require = createRequire(import.meta.url);" },
    // The Node adapter asks for HTTP/2, which is not served here and takes 6 ms of every start to load. The log is written
    // by this thread, and what pino brings for others takes 3 ms.
    alias: { 'node:http2': './dev/no-http2.ts', 'thread-stream': './dev/no-threads.ts' },
    logLevel: 'warning',
  })

if (import.meta.main) {
  rmSync('dist', { recursive: true, force: true })
  const { metafile } = await bundle('dist')
  writeAssets('dist/assets')
  writeThirdParty('dist', [...filesOf(metafile), ...Object.values(ASSETS)])
  // V8's compiled code can only be taken by what is loaded after the cache was named: so a file of its own does that.
  writeFileSync(
    'dist/main.js',
    `import { enableCompileCache } from 'node:module'
enableCompileCache(import.meta.dirname + '/cache')
await import('./users-api.js')
`,
  )
  await warm('dist/main.js')
}

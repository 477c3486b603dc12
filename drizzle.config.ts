import { defineConfig } from 'drizzle-kit'

// A second resource adds its table here.
export default defineConfig({ dialect: 'postgresql', schema: ['./src/users/table.ts'], out: './drizzle' })

(module
  (type (;0;) (func (param i32) (result i32)))
  (type (;1;) (func (param i32 i32) (result i64)))
  (func $alloc (type 0) (param i32) (result i32)
    (local i32 i32)
    block  ;; label = @1
      i32.const 0
      i32.load offset=1256
      local.tee 1
      br_if 0 (;@1;)
      i32.const 66800
      local.set 1
      i32.const 0
      i32.const 66800
      i32.store offset=1256
    end
    block  ;; label = @1
      i32.const 2147483647
      local.get 1
      i32.const 7
      i32.add
      i32.const -8
      i32.and
      local.tee 1
      i32.sub
      local.get 0
      i32.lt_u
      br_if 0 (;@1;)
      i32.const 0
      local.get 1
      local.get 0
      i32.add
      local.tee 0
      i32.store offset=1256
      block  ;; label = @2
        local.get 0
        i32.const 65535
        i32.add
        i32.const 16
        i32.shr_u
        local.tee 0
        memory.size
        local.tee 2
        i32.le_u
        br_if 0 (;@2;)
        local.get 0
        local.get 2
        i32.sub
        memory.grow
        i32.const -1
        i32.eq
        br_if 1 (;@1;)
      end
      local.get 1
      return
    end
    unreachable
    unreachable)
  (func $run (type 1) (param i32 i32) (result i64)
    (local i32 i64 i32 i32 i32 i32 i32 i32)
    global.get $__stack_pointer
    i32.const 32
    i32.sub
    local.set 2
    i32.const 1142
    i64.extend_i32_u
    i64.const 32
    i64.shl
    i64.const 2147483721
    i64.or
    local.set 3
    block  ;; label = @1
      local.get 1
      i32.const 8
      i32.lt_u
      br_if 0 (;@1;)
      i32.const 0
      local.set 4
      i32.const 0
      local.set 5
      i32.const 0
      local.set 6
      block  ;; label = @2
        loop  ;; label = @3
          local.get 0
          local.get 4
          i32.add
          local.tee 7
          i32.load8_u
          local.set 8
          block  ;; label = @4
            block  ;; label = @5
              block  ;; label = @6
                local.get 5
                i32.eqz
                br_if 0 (;@6;)
                block  ;; label = @7
                  local.get 8
                  i32.const 34
                  i32.eq
                  br_if 0 (;@7;)
                  i32.const 1
                  local.set 5
                  local.get 8
                  i32.const 92
                  i32.ne
                  br_if 2 (;@5;)
                  i32.const 1
                  local.set 5
                  local.get 4
                  i32.const 1
                  i32.add
                  local.set 8
                  br 3 (;@4;)
                end
                i32.const 0
                local.set 5
                br 1 (;@5;)
              end
              local.get 6
              local.get 8
              i32.const 223
              i32.and
              local.tee 5
              i32.const 91
              i32.eq
              i32.add
              local.get 5
              i32.const 93
              i32.eq
              i32.sub
              local.set 6
              i32.const 0
              local.set 5
              local.get 8
              i32.const 34
              i32.ne
              br_if 0 (;@5;)
              i32.const 1
              local.set 5
              local.get 6
              i32.const 1
              i32.ne
              br_if 0 (;@5;)
              i32.const 1
              local.set 6
              block  ;; label = @6
                local.get 7
                i32.const 1
                i32.add
                i32.load8_u
                i32.const 105
                i32.ne
                br_if 0 (;@6;)
                local.get 7
                i32.const 2
                i32.add
                i32.load8_u
                i32.const 110
                i32.ne
                br_if 0 (;@6;)
                local.get 7
                i32.const 3
                i32.add
                i32.load8_u
                i32.const 112
                i32.ne
                br_if 0 (;@6;)
                local.get 7
                i32.const 4
                i32.add
                i32.load8_u
                i32.const 117
                i32.ne
                br_if 0 (;@6;)
                local.get 7
                i32.const 5
                i32.add
                i32.load8_u
                i32.const 116
                i32.ne
                br_if 0 (;@6;)
                local.get 7
                i32.const 6
                i32.add
                i32.load8_u
                i32.const 34
                i32.ne
                br_if 0 (;@6;)
                local.get 7
                i32.const 7
                i32.add
                i32.load8_u
                i32.const 58
                i32.eq
                br_if 4 (;@2;)
              end
              i32.const 1
              local.set 5
            end
            local.get 4
            local.set 8
          end
          local.get 8
          i32.const 1
          i32.add
          local.set 4
          local.get 8
          i32.const 9
          i32.add
          local.get 1
          i32.le_u
          br_if 0 (;@3;)
          br 2 (;@1;)
        end
      end
      block  ;; label = @2
        local.get 7
        i32.load8_u offset=8
        i32.const 34
        i32.eq
        br_if 0 (;@2;)
        i32.const 1142
        i64.extend_i32_u
        i64.const 32
        i64.shl
        i64.const 2147483721
        i64.or
        return
      end
      block  ;; label = @2
        block  ;; label = @3
          block  ;; label = @4
            block  ;; label = @5
              local.get 7
              i32.const 8
              i32.add
              i32.const 1
              i32.add
              local.tee 8
              local.get 0
              local.get 1
              i32.add
              i32.ge_u
              br_if 0 (;@5;)
              local.get 1
              local.get 4
              i32.sub
              i32.const -9
              i32.add
              local.set 4
              i32.const 0
              local.set 7
              i32.const 1055
              i64.extend_i32_u
              i64.const 32
              i64.shl
              i64.const 2147483734
              i64.or
              local.set 3
              block  ;; label = @6
                loop  ;; label = @7
                  block  ;; label = @8
                    block  ;; label = @9
                      local.get 8
                      i32.load8_u
                      local.tee 5
                      i32.const -32
                      i32.add
                      br_table 1 (;@8;) 0 (;@9;) 3 (;@6;) 0 (;@9;) 0 (;@9;) 0 (;@9;) 0 (;@9;) 0 (;@9;) 0 (;@9;) 0 (;@9;) 0 (;@9;) 0 (;@9;) 0 (;@9;) 1 (;@8;) 0 (;@9;)
                    end
                    local.get 5
                    i32.const 24
                    i32.shl
                    i32.const 24
                    i32.shr_s
                    i32.const 48
                    i32.lt_s
                    br_if 7 (;@1;)
                    local.get 5
                    i32.const 57
                    i32.gt_u
                    br_if 7 (;@1;)
                    local.get 7
                    i32.const 32
                    i32.eq
                    br_if 7 (;@1;)
                    local.get 2
                    local.get 7
                    i32.add
                    local.get 5
                    i32.const -48
                    i32.add
                    i32.store8
                    local.get 7
                    i32.const 1
                    i32.add
                    local.set 7
                  end
                  local.get 8
                  i32.const 1
                  i32.add
                  local.set 8
                  local.get 4
                  i32.const -1
                  i32.add
                  local.tee 4
                  br_if 0 (;@7;)
                end
              end
              local.get 7
              i32.eqz
              br_if 0 (;@5;)
              local.get 7
              i32.const 1
              i32.and
              local.set 9
              local.get 7
              i32.const 1
              i32.ne
              br_if 1 (;@4;)
              i32.const 0
              local.set 4
              i32.const 0
              local.set 5
              br 2 (;@3;)
            end
            i32.const 0
            i32.const 48
            i32.store8 offset=1226
            i32.const 1039
            local.set 5
            i32.const 10
            local.set 4
            br 2 (;@2;)
          end
          i32.const 0
          local.set 4
          i32.const 0
          local.get 7
          i32.const -2
          i32.and
          i32.sub
          local.set 0
          local.get 2
          local.get 7
          i32.add
          local.set 6
          i32.const 0
          local.set 5
          loop  ;; label = @4
            local.get 6
            local.get 4
            i32.add
            local.tee 1
            i32.const -2
            i32.add
            i32.load8_s
            i32.const 1
            i32.shl
            local.tee 8
            i32.const -9
            i32.add
            local.get 8
            local.get 8
            i32.const 9
            i32.gt_u
            select
            local.get 1
            i32.const -1
            i32.add
            i32.load8_s
            local.tee 8
            i32.const -9
            i32.add
            local.get 8
            local.get 8
            i32.const 9
            i32.gt_u
            select
            local.get 5
            i32.add
            i32.add
            local.set 5
            local.get 0
            local.get 4
            i32.const -2
            i32.add
            local.tee 4
            i32.ne
            br_if 0 (;@4;)
          end
          i32.const 0
          local.get 4
          i32.sub
          local.set 4
        end
        block  ;; label = @3
          local.get 9
          i32.eqz
          br_if 0 (;@3;)
          local.get 2
          local.get 7
          local.get 4
          i32.const -1
          i32.xor
          i32.add
          i32.add
          i32.load8_s
          local.get 4
          i32.const 1
          i32.and
          i32.shl
          local.tee 4
          i32.const -9
          i32.add
          local.get 4
          local.get 4
          i32.const 9
          i32.gt_u
          select
          local.get 5
          i32.add
          local.set 5
        end
        i32.const 10
        local.set 4
        local.get 5
        i32.const 10
        i32.rem_u
        local.set 8
        block  ;; label = @3
          block  ;; label = @4
            local.get 7
            i32.const 9
            i32.le_u
            br_if 0 (;@4;)
            i32.const 0
            local.get 7
            i32.const 10
            i32.div_u
            local.tee 4
            i32.const 48
            i32.add
            i32.store8 offset=1226
            i32.const 0
            local.get 7
            local.get 4
            i32.const 10
            i32.mul
            i32.sub
            i32.const 48
            i32.or
            i32.store8 offset=1227
            i32.const 11
            local.set 4
            br 1 (;@3;)
          end
          i32.const 0
          local.get 7
          i32.const 255
          i32.and
          i32.const 10
          i32.rem_u
          i32.const 48
          i32.or
          i32.store8 offset=1226
          i32.const 1039
          local.set 5
          local.get 7
          i32.const 2
          i32.lt_u
          br_if 1 (;@2;)
        end
        i32.const 1039
        i32.const 1024
        local.get 8
        select
        local.set 5
      end
      local.get 4
      i32.const 1
      i32.add
      local.set 4
      block  ;; label = @2
        local.get 5
        i32.load8_u
        local.tee 8
        i32.eqz
        br_if 0 (;@2;)
        local.get 5
        i32.const 1
        i32.add
        local.set 5
        loop  ;; label = @3
          local.get 4
          i32.const 1216
          i32.add
          local.get 8
          i32.store8
          local.get 4
          i32.const 1
          i32.add
          local.set 4
          local.get 5
          i32.load8_u
          local.set 8
          local.get 5
          i32.const 1
          i32.add
          local.set 5
          local.get 8
          br_if 0 (;@3;)
        end
      end
      local.get 4
      i64.extend_i32_u
      i32.const 1216
      i64.extend_i32_u
      i64.const 32
      i64.shl
      i64.or
      local.set 3
    end
    local.get 3)
  (table (;0;) 1 1 funcref)
  (memory (;0;) 2)
  (global $__stack_pointer (mut i32) (i32.const 66800))
  (export "memory" (memory 0))
  (export "alloc" (func $alloc))
  (export "run" (func $run))
  (data $.rodata (i32.const 1024) ",\22valid\22:true}\00,\22valid\22:false}\00{\22code\22:\22invalid_input\22,\22message\22:\22input must be up to 32 digits, spaces and hyphens\22}\00{\22code\22:\22invalid_input\22,\22message\22:\22input is no text: send a card number\22}\00")
  (data $.data (i32.const 1216) "{\22digits\22:\00\00\00\00\00\00\00\00\00\00\00\00\00\00\00\00\00\00\00\00\00\00\00\00\00\00\00\00\00\00"))

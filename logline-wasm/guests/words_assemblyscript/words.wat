(module
  (type (;0;) (func (param i32 i32) (result i32)))
  (type (;1;) (func (param i32 i32)))
  (type (;2;) (func (param i32) (result i32)))
  (type (;3;) (func (param i32 i32 i32) (result i32)))
  (type (;4;) (func))
  (type (;5;) (func (param i32 i32) (result i64)))
  (type (;6;) (func (param i32 i32 i32)))
  (type (;7;) (func (param i32 i32 i64)))
  (type (;8;) (func (param i32)))
  (type (;9;) (func (param i32 i32 i32) (result i64)))
  (import "logline" "host_call" (func (;0;) (type 9)))
  (func (;1;) (type 0) (param i32 i32) (result i32)
    (local i32)
    local.get 0
    i32.const 1073741804
    i32.gt_u
    if  ;; label = @1
      unreachable
    end
    global.get 0
    i32.eqz
    if  ;; label = @1
      call 9
    end
    global.get 0
    local.get 0
    i32.const 16
    i32.add
    call 10
    local.tee 2
    local.get 1
    i32.store offset=12
    local.get 2
    local.get 0
    i32.store offset=16
    global.get 1
    local.tee 0
    i32.load offset=8
    local.set 1
    local.get 2
    local.get 0
    i32.store offset=4
    local.get 2
    local.get 1
    i32.store offset=8
    local.get 1
    local.get 2
    local.get 1
    i32.load offset=4
    i32.const 3
    i32.and
    i32.or
    i32.store offset=4
    local.get 0
    local.get 2
    i32.store offset=8
    global.get 2
    local.get 2
    i32.load
    i32.const -4
    i32.and
    i32.const 4
    i32.add
    i32.add
    global.set 2
    local.get 2
    i32.const 20
    i32.add)
  (func (;2;) (type 0) (param i32 i32) (result i32)
    (local i32 i32 i32 i32)
    i32.const 1136
    local.set 2
    local.get 0
    i32.const 20
    i32.sub
    i32.load offset=16
    i32.const -2
    i32.and
    local.tee 3
    local.get 1
    i32.const 20
    i32.sub
    i32.load offset=16
    i32.const -2
    i32.and
    local.tee 4
    i32.add
    local.tee 5
    if  ;; label = @1
      local.get 5
      i32.const 2
      call 1
      local.tee 2
      local.get 0
      local.get 3
      memory.copy
      local.get 2
      local.get 3
      i32.add
      local.get 1
      local.get 4
      memory.copy
    end
    local.get 2)
  (func (;3;) (type 1) (param i32 i32)
    (local i32 i32 i32 i32)
    local.get 1
    i32.load
    local.tee 3
    i32.const 1
    i32.and
    i32.eqz
    if  ;; label = @1
      unreachable
    end
    local.get 3
    i32.const -4
    i32.and
    local.tee 3
    i32.const 12
    i32.lt_u
    if  ;; label = @1
      unreachable
    end
    local.get 3
    i32.const 256
    i32.lt_u
    if (result i32)  ;; label = @1
      local.get 3
      i32.const 4
      i32.shr_u
    else
      i32.const 31
      i32.const 1073741820
      local.get 3
      local.get 3
      i32.const 1073741820
      i32.ge_u
      select
      local.tee 3
      i32.clz
      i32.sub
      local.tee 4
      i32.const 7
      i32.sub
      local.set 2
      local.get 3
      local.get 4
      i32.const 4
      i32.sub
      i32.shr_u
      i32.const 16
      i32.xor
    end
    local.tee 3
    i32.const 16
    i32.lt_u
    local.get 2
    i32.const 23
    i32.lt_u
    i32.and
    i32.eqz
    if  ;; label = @1
      unreachable
    end
    local.get 1
    i32.load offset=8
    local.set 5
    local.get 1
    i32.load offset=4
    local.tee 4
    if  ;; label = @1
      local.get 4
      local.get 5
      i32.store offset=8
    end
    local.get 5
    if  ;; label = @1
      local.get 5
      local.get 4
      i32.store offset=4
    end
    local.get 1
    local.get 0
    local.get 2
    i32.const 4
    i32.shl
    local.get 3
    i32.add
    i32.const 2
    i32.shl
    i32.add
    local.tee 1
    i32.load offset=96
    i32.eq
    if  ;; label = @1
      local.get 1
      local.get 5
      i32.store offset=96
      local.get 5
      i32.eqz
      if  ;; label = @2
        local.get 0
        local.get 2
        i32.const 2
        i32.shl
        i32.add
        local.tee 1
        i32.load offset=4
        i32.const -2
        local.get 3
        i32.rotl
        i32.and
        local.set 3
        local.get 1
        local.get 3
        i32.store offset=4
        local.get 3
        i32.eqz
        if  ;; label = @3
          local.get 0
          local.get 0
          i32.load
          i32.const -2
          local.get 2
          i32.rotl
          i32.and
          i32.store
        end
      end
    end)
  (func (;4;) (type 6) (param i32 i32 i32)
    (local i32 i32)
    local.get 1
    i32.load
    local.set 3
    local.get 2
    i32.const 4
    i32.add
    i32.const 15
    i32.and
    if  ;; label = @1
      unreachable
    end
    local.get 3
    i32.const -4
    i32.and
    local.get 2
    i32.sub
    local.tee 4
    i32.const 16
    i32.ge_u
    if  ;; label = @1
      local.get 1
      local.get 2
      local.get 3
      i32.const 2
      i32.and
      i32.or
      i32.store
      local.get 1
      i32.const 4
      i32.add
      local.get 2
      i32.add
      local.tee 1
      local.get 4
      i32.const 4
      i32.sub
      i32.const 1
      i32.or
      i32.store
      local.get 0
      local.get 1
      call 5
    else
      local.get 1
      local.get 3
      i32.const -2
      i32.and
      i32.store
      local.get 1
      i32.const 4
      i32.add
      local.get 1
      i32.load
      i32.const -4
      i32.and
      i32.add
      local.tee 0
      local.get 0
      i32.load
      i32.const -3
      i32.and
      i32.store
    end)
  (func (;5;) (type 1) (param i32 i32)
    (local i32 i32 i32 i32 i32)
    local.get 1
    i32.eqz
    if  ;; label = @1
      unreachable
    end
    local.get 1
    i32.load
    local.tee 3
    i32.const 1
    i32.and
    i32.eqz
    if  ;; label = @1
      unreachable
    end
    local.get 1
    i32.const 4
    i32.add
    local.get 1
    i32.load
    i32.const -4
    i32.and
    i32.add
    local.tee 4
    i32.load
    local.tee 2
    i32.const 1
    i32.and
    if  ;; label = @1
      local.get 0
      local.get 4
      call 3
      local.get 1
      local.get 3
      i32.const 4
      i32.add
      local.get 2
      i32.const -4
      i32.and
      i32.add
      local.tee 3
      i32.store
      local.get 1
      i32.const 4
      i32.add
      local.get 1
      i32.load
      i32.const -4
      i32.and
      i32.add
      local.tee 4
      i32.load
      local.set 2
    end
    local.get 3
    i32.const 2
    i32.and
    if  ;; label = @1
      local.get 1
      i32.const 4
      i32.sub
      i32.load
      local.tee 1
      i32.load
      local.tee 6
      i32.const 1
      i32.and
      i32.eqz
      if  ;; label = @2
        unreachable
      end
      local.get 0
      local.get 1
      call 3
      local.get 1
      local.get 6
      i32.const 4
      i32.add
      local.get 3
      i32.const -4
      i32.and
      i32.add
      local.tee 3
      i32.store
    end
    local.get 4
    local.get 2
    i32.const 2
    i32.or
    i32.store
    local.get 3
    i32.const -4
    i32.and
    local.tee 2
    i32.const 12
    i32.lt_u
    if  ;; label = @1
      unreachable
    end
    local.get 4
    local.get 1
    i32.const 4
    i32.add
    local.get 2
    i32.add
    i32.ne
    if  ;; label = @1
      unreachable
    end
    local.get 4
    i32.const 4
    i32.sub
    local.get 1
    i32.store
    local.get 2
    i32.const 256
    i32.lt_u
    if (result i32)  ;; label = @1
      local.get 2
      i32.const 4
      i32.shr_u
    else
      i32.const 31
      i32.const 1073741820
      local.get 2
      local.get 2
      i32.const 1073741820
      i32.ge_u
      select
      local.tee 2
      i32.clz
      i32.sub
      local.tee 3
      i32.const 7
      i32.sub
      local.set 5
      local.get 2
      local.get 3
      i32.const 4
      i32.sub
      i32.shr_u
      i32.const 16
      i32.xor
    end
    local.tee 2
    i32.const 16
    i32.lt_u
    local.get 5
    i32.const 23
    i32.lt_u
    i32.and
    i32.eqz
    if  ;; label = @1
      unreachable
    end
    local.get 0
    local.get 5
    i32.const 4
    i32.shl
    local.get 2
    i32.add
    i32.const 2
    i32.shl
    i32.add
    i32.load offset=96
    local.set 3
    local.get 1
    i32.const 0
    i32.store offset=4
    local.get 1
    local.get 3
    i32.store offset=8
    local.get 3
    if  ;; label = @1
      local.get 3
      local.get 1
      i32.store offset=4
    end
    local.get 0
    local.get 5
    i32.const 4
    i32.shl
    local.get 2
    i32.add
    i32.const 2
    i32.shl
    i32.add
    local.get 1
    i32.store offset=96
    local.get 0
    local.get 0
    i32.load
    i32.const 1
    local.get 5
    i32.shl
    i32.or
    i32.store
    local.get 0
    local.get 5
    i32.const 2
    i32.shl
    i32.add
    local.tee 0
    local.get 0
    i32.load offset=4
    i32.const 1
    local.get 2
    i32.shl
    i32.or
    i32.store offset=4)
  (func (;6;) (type 2) (param i32) (result i32)
    (local i32 i32 i32 i32 i32)
    block  ;; label = @1
      block  ;; label = @2
        global.get 4
        i32.const 1
        i32.sub
        br_table 1 (;@1;) 1 (;@1;) 1 (;@1;) 0 (;@2;)
      end
      unreachable
    end
    local.get 0
    local.tee 1
    i32.const 20
    i32.sub
    i32.load offset=16
    local.get 1
    i32.add
    local.set 3
    loop  ;; label = @1
      local.get 1
      local.get 3
      i32.lt_u
      if  ;; label = @2
        local.get 1
        i32.load16_u
        local.tee 4
        i32.const 128
        i32.lt_u
        if (result i32)  ;; label = @3
          local.get 2
          i32.const 1
          i32.add
        else
          local.get 4
          i32.const 2048
          i32.lt_u
          if (result i32)  ;; label = @4
            local.get 2
            i32.const 2
            i32.add
          else
            local.get 4
            i32.const 64512
            i32.and
            i32.const 55296
            i32.eq
            local.get 1
            i32.const 2
            i32.add
            local.get 3
            i32.lt_u
            i32.and
            if  ;; label = @5
              local.get 1
              i32.load16_u offset=2
              i32.const 64512
              i32.and
              i32.const 56320
              i32.eq
              if  ;; label = @6
                local.get 2
                i32.const 4
                i32.add
                local.set 2
                local.get 1
                i32.const 4
                i32.add
                local.set 1
                br 5 (;@1;)
              end
            end
            local.get 2
            i32.const 3
            i32.add
          end
        end
        local.set 2
        local.get 1
        i32.const 2
        i32.add
        local.set 1
        br 1 (;@1;)
      end
    end
    local.get 2
    i32.const 1
    call 1
    local.set 2
    local.get 0
    local.tee 1
    local.get 1
    i32.const 20
    i32.sub
    i32.load offset=16
    i32.const -2
    i32.and
    i32.add
    local.set 4
    local.get 2
    local.set 0
    loop  ;; label = @1
      local.get 1
      local.get 4
      i32.lt_u
      if  ;; label = @2
        local.get 1
        i32.load16_u
        local.tee 3
        i32.const 128
        i32.lt_u
        if (result i32)  ;; label = @3
          local.get 0
          local.get 3
          i32.store8
          local.get 0
          i32.const 1
          i32.add
        else
          local.get 3
          i32.const 2048
          i32.lt_u
          if (result i32)  ;; label = @4
            local.get 0
            local.get 3
            i32.const 6
            i32.shr_u
            i32.const 192
            i32.or
            local.get 3
            i32.const 63
            i32.and
            i32.const 128
            i32.or
            i32.const 8
            i32.shl
            i32.or
            i32.store16
            local.get 0
            i32.const 2
            i32.add
          else
            local.get 3
            i32.const 63488
            i32.and
            i32.const 55296
            i32.eq
            if  ;; label = @5
              local.get 3
              i32.const 56320
              i32.lt_u
              local.get 1
              i32.const 2
              i32.add
              local.get 4
              i32.lt_u
              i32.and
              if  ;; label = @6
                local.get 1
                i32.load16_u offset=2
                local.tee 5
                i32.const 64512
                i32.and
                i32.const 56320
                i32.eq
                if  ;; label = @7
                  local.get 0
                  local.get 3
                  i32.const 1023
                  i32.and
                  i32.const 10
                  i32.shl
                  i32.const 65536
                  i32.add
                  local.get 5
                  i32.const 1023
                  i32.and
                  i32.or
                  local.tee 3
                  i32.const 63
                  i32.and
                  i32.const 128
                  i32.or
                  i32.const 24
                  i32.shl
                  local.get 3
                  i32.const 6
                  i32.shr_u
                  i32.const 63
                  i32.and
                  i32.const 128
                  i32.or
                  i32.const 16
                  i32.shl
                  i32.or
                  local.get 3
                  i32.const 12
                  i32.shr_u
                  i32.const 63
                  i32.and
                  i32.const 128
                  i32.or
                  i32.const 8
                  i32.shl
                  i32.or
                  local.get 3
                  i32.const 18
                  i32.shr_u
                  i32.const 240
                  i32.or
                  i32.or
                  i32.store
                  local.get 0
                  i32.const 4
                  i32.add
                  local.set 0
                  local.get 1
                  i32.const 4
                  i32.add
                  local.set 1
                  br 6 (;@1;)
                end
              end
            end
            local.get 0
            local.get 3
            i32.const 12
            i32.shr_u
            i32.const 224
            i32.or
            local.get 3
            i32.const 6
            i32.shr_u
            i32.const 63
            i32.and
            i32.const 128
            i32.or
            i32.const 8
            i32.shl
            i32.or
            i32.store16
            local.get 0
            local.get 3
            i32.const 63
            i32.and
            i32.const 128
            i32.or
            i32.store8 offset=2
            local.get 0
            i32.const 3
            i32.add
          end
        end
        local.set 0
        local.get 1
        i32.const 2
        i32.add
        local.set 1
        br 1 (;@1;)
      end
    end
    local.get 2)
  (func (;7;) (type 0) (param i32 i32) (result i32)
    (local i32)
    local.get 1
    i32.const 256
    i32.lt_u
    if  ;; label = @1
      local.get 1
      i32.const 4
      i32.shr_u
      local.set 1
    else
      local.get 1
      i32.const 536870910
      i32.lt_u
      if  ;; label = @2
        local.get 1
        i32.const 1
        i32.const 27
        local.get 1
        i32.clz
        i32.sub
        i32.shl
        i32.add
        i32.const 1
        i32.sub
        local.set 1
      end
      local.get 1
      i32.const 31
      local.get 1
      i32.clz
      i32.sub
      local.tee 2
      i32.const 4
      i32.sub
      i32.shr_u
      i32.const 16
      i32.xor
      local.set 1
      local.get 2
      i32.const 7
      i32.sub
      local.set 2
    end
    local.get 1
    i32.const 16
    i32.lt_u
    local.get 2
    i32.const 23
    i32.lt_u
    i32.and
    i32.eqz
    if  ;; label = @1
      unreachable
    end
    local.get 0
    local.get 2
    i32.const 2
    i32.shl
    i32.add
    i32.load offset=4
    i32.const -1
    local.get 1
    i32.shl
    i32.and
    local.tee 1
    if (result i32)  ;; label = @1
      local.get 0
      local.get 1
      i32.ctz
      local.get 2
      i32.const 4
      i32.shl
      i32.add
      i32.const 2
      i32.shl
      i32.add
      i32.load offset=96
    else
      local.get 0
      i32.load
      i32.const -1
      local.get 2
      i32.const 1
      i32.add
      i32.shl
      i32.and
      local.tee 1
      if (result i32)  ;; label = @2
        local.get 0
        local.get 1
        i32.ctz
        local.tee 1
        i32.const 2
        i32.shl
        i32.add
        i32.load offset=4
        local.tee 2
        i32.eqz
        if  ;; label = @3
          unreachable
        end
        local.get 0
        local.get 2
        i32.ctz
        local.get 1
        i32.const 4
        i32.shl
        i32.add
        i32.const 2
        i32.shl
        i32.add
        i32.load offset=96
      else
        i32.const 0
      end
    end)
  (func (;8;) (type 3) (param i32 i32 i32) (result i32)
    local.get 0
    local.get 2
    call 10
    local.tee 2
    i32.const 4
    i32.add
    local.get 1
    i32.const 4
    i32.add
    local.get 1
    i32.load
    i32.const -4
    i32.and
    memory.copy
    local.get 1
    i32.const 3180
    i32.ge_u
    if  ;; label = @1
      local.get 1
      local.get 1
      i32.load
      i32.const 1
      i32.or
      i32.store
      local.get 0
      local.get 1
      call 5
    end
    local.get 2)
  (func (;9;) (type 4)
    (local i32 i32)
    memory.size
    local.tee 1
    i32.const 0
    i32.le_s
    if (result i32)  ;; label = @1
      i32.const 1
      local.get 1
      i32.sub
      memory.grow
      i32.const 0
      i32.lt_s
    else
      i32.const 0
    end
    if  ;; label = @1
      unreachable
    end
    i32.const 3184
    i32.const 0
    i32.store
    i32.const 4752
    i32.const 0
    i32.store
    loop  ;; label = @1
      local.get 0
      i32.const 23
      i32.lt_u
      if  ;; label = @2
        local.get 0
        i32.const 2
        i32.shl
        i32.const 3184
        i32.add
        i32.const 0
        i32.store offset=4
        i32.const 0
        local.set 1
        loop  ;; label = @3
          local.get 1
          i32.const 16
          i32.lt_u
          if  ;; label = @4
            local.get 0
            i32.const 4
            i32.shl
            local.get 1
            i32.add
            i32.const 2
            i32.shl
            i32.const 3184
            i32.add
            i32.const 0
            i32.store offset=96
            local.get 1
            i32.const 1
            i32.add
            local.set 1
            br 1 (;@3;)
          end
        end
        local.get 0
        i32.const 1
        i32.add
        local.set 0
        br 1 (;@1;)
      end
    end
    i32.const 3184
    i32.const 4756
    memory.size
    i64.extend_i32_s
    i64.const 16
    i64.shl
    call 11
    i32.const 3184
    global.set 0)
  (func (;10;) (type 0) (param i32 i32) (result i32)
    (local i32 i32)
    local.get 1
    i32.const 1073741820
    i32.gt_u
    if  ;; label = @1
      unreachable
    end
    local.get 0
    local.get 1
    i32.const 12
    i32.le_u
    if (result i32)  ;; label = @1
      i32.const 12
    else
      local.get 1
      i32.const 19
      i32.add
      i32.const -16
      i32.and
      i32.const 4
      i32.sub
    end
    local.tee 2
    call 7
    local.tee 1
    i32.eqz
    if  ;; label = @1
      local.get 2
      i32.const 256
      i32.ge_u
      if (result i32)  ;; label = @2
        local.get 2
        i32.const 536870910
        i32.lt_u
        if (result i32)  ;; label = @3
          local.get 2
          i32.const 1
          i32.const 27
          local.get 2
          i32.clz
          i32.sub
          i32.shl
          i32.add
          i32.const 1
          i32.sub
        else
          local.get 2
        end
      else
        local.get 2
      end
      i32.const 4
      local.get 0
      i32.load offset=1568
      memory.size
      local.tee 3
      i32.const 16
      i32.shl
      i32.const 4
      i32.sub
      i32.ne
      i32.shl
      i32.add
      i32.const 65535
      i32.add
      i32.const -65536
      i32.and
      i32.const 16
      i32.shr_u
      local.set 1
      local.get 3
      local.get 1
      local.get 1
      local.get 3
      i32.lt_s
      select
      memory.grow
      i32.const 0
      i32.lt_s
      if  ;; label = @2
        local.get 1
        memory.grow
        i32.const 0
        i32.lt_s
        if  ;; label = @3
          unreachable
        end
      end
      local.get 0
      local.get 3
      i32.const 16
      i32.shl
      memory.size
      i64.extend_i32_s
      i64.const 16
      i64.shl
      call 11
      local.get 0
      local.get 2
      call 7
      local.tee 1
      i32.eqz
      if  ;; label = @2
        unreachable
      end
    end
    local.get 2
    local.get 1
    i32.load
    i32.const -4
    i32.and
    i32.gt_u
    if  ;; label = @1
      unreachable
    end
    local.get 0
    local.get 1
    call 3
    local.get 0
    local.get 1
    local.get 2
    call 4
    local.get 1)
  (func (;11;) (type 7) (param i32 i32 i64)
    (local i32 i32 i32)
    local.get 2
    local.get 1
    i64.extend_i32_u
    i64.lt_u
    if  ;; label = @1
      unreachable
    end
    local.get 1
    i32.const 19
    i32.add
    i32.const -16
    i32.and
    i32.const 4
    i32.sub
    local.set 1
    local.get 0
    i32.load offset=1568
    local.tee 3
    if  ;; label = @1
      local.get 3
      i32.const 4
      i32.add
      local.get 1
      i32.gt_u
      if  ;; label = @2
        unreachable
      end
      local.get 3
      local.get 1
      i32.const 16
      i32.sub
      local.tee 5
      i32.eq
      if  ;; label = @2
        local.get 3
        i32.load
        local.set 4
        local.get 5
        local.set 1
      end
    else
      local.get 0
      i32.const 1572
      i32.add
      local.get 1
      i32.gt_u
      if  ;; label = @2
        unreachable
      end
    end
    local.get 2
    i32.wrap_i64
    i32.const -16
    i32.and
    local.get 1
    i32.sub
    local.tee 3
    i32.const 20
    i32.lt_u
    if  ;; label = @1
      return
    end
    local.get 1
    local.get 4
    i32.const 2
    i32.and
    local.get 3
    i32.const 8
    i32.sub
    local.tee 3
    i32.const 1
    i32.or
    i32.or
    i32.store
    local.get 1
    i32.const 0
    i32.store offset=4
    local.get 1
    i32.const 0
    i32.store offset=8
    local.get 1
    i32.const 4
    i32.add
    local.get 3
    i32.add
    local.tee 3
    i32.const 2
    i32.store
    local.get 0
    local.get 3
    i32.store offset=1568
    local.get 0
    local.get 1
    call 5)
  (func (;12;) (type 8) (param i32)
    (local i32 i32)
    local.get 0
    if  ;; label = @1
      local.get 0
      i32.const 20
      i32.sub
      local.tee 0
      i32.load offset=4
      i32.const 3
      i32.and
      i32.const 3
      i32.eq
      if  ;; label = @2
        unreachable
      end
      block  ;; label = @2
        local.get 0
        i32.load offset=4
        i32.const -4
        i32.and
        local.tee 1
        i32.eqz
        if  ;; label = @3
          local.get 0
          i32.load offset=8
          i32.eqz
          local.get 0
          i32.const 3180
          i32.lt_u
          i32.and
          i32.eqz
          if  ;; label = @4
            unreachable
          end
          br 1 (;@2;)
        end
        local.get 0
        i32.load offset=8
        local.tee 2
        i32.eqz
        if  ;; label = @3
          unreachable
        end
        local.get 1
        local.get 2
        i32.store offset=8
        local.get 2
        local.get 1
        local.get 2
        i32.load offset=4
        i32.const 3
        i32.and
        i32.or
        i32.store offset=4
      end
      global.get 3
      local.tee 1
      i32.load offset=8
      local.set 2
      local.get 0
      local.get 1
      i32.const 3
      i32.or
      i32.store offset=4
      local.get 0
      local.get 2
      i32.store offset=8
      local.get 2
      local.get 0
      local.get 2
      i32.load offset=4
      i32.const 3
      i32.and
      i32.or
      i32.store offset=4
      local.get 1
      local.get 0
      i32.store offset=8
    end)
  (func (;13;) (type 5) (param i32 i32) (result i64)
    i32.const 1
    global.set 4
    local.get 0
    call 6
    local.tee 0
    call 12
    local.get 0
    i32.const 20
    i32.sub
    i64.load32_s offset=16
    local.get 0
    i64.extend_i32_u
    i64.const 32
    i64.shl
    i64.const 2147483648
    i64.const 0
    local.get 1
    select
    i64.or
    i64.or)
  (func (;14;) (type 3) (param i32 i32 i32) (result i32)
    (local i32 i32 i32 i32 i32 i32 i32)
    local.get 1
    i32.const 0
    i32.lt_s
    if (result i32)  ;; label = @1
      i32.const 1
    else
      local.get 1
      local.get 0
      i32.const 20
      i32.sub
      i32.load offset=16
      i32.const 1
      i32.shr_u
      i32.ge_u
      if (result i32)  ;; label = @2
        i32.const -1
      else
        local.get 0
        local.get 1
        i32.const 1
        i32.shl
        i32.add
        i32.load16_u
      end
      i32.const 123
      i32.ne
    end
    if  ;; label = @1
      i32.const -1
      return
    end
    local.get 1
    local.set 3
    loop  ;; label = @1
      local.get 3
      local.get 0
      i32.const 20
      i32.sub
      i32.load offset=16
      i32.const 1
      i32.shr_u
      local.tee 1
      i32.lt_s
      if  ;; label = @2
        local.get 7
        i32.const 1
        i32.add
        local.get 7
        local.get 1
        local.get 3
        i32.le_u
        if (result i32)  ;; label = @3
          i32.const -1
        else
          local.get 0
          local.get 3
          i32.const 1
          i32.shl
          i32.add
          i32.load16_u
        end
        local.tee 1
        i32.const 91
        i32.eq
        local.get 1
        i32.const 123
        i32.eq
        i32.or
        select
        local.set 7
        local.get 1
        i32.const 93
        i32.eq
        local.get 1
        i32.const 125
        i32.eq
        i32.or
        if (result i32)  ;; label = @3
          local.get 7
          i32.const 1
          i32.sub
          local.tee 7
        else
          i32.const 1
        end
        i32.eqz
        if  ;; label = @3
          i32.const -1
          return
        end
        local.get 1
        i32.const 34
        i32.eq
        if  ;; label = @3
          local.get 3
          i32.const 1
          i32.add
          local.tee 1
          local.set 3
          loop  ;; label = @4
            local.get 3
            local.get 0
            i32.const 20
            i32.sub
            i32.load offset=16
            i32.const 1
            i32.shr_u
            local.tee 4
            i32.lt_s
            if (result i32)  ;; label = @5
              local.get 3
              local.get 4
              i32.ge_u
              if (result i32)  ;; label = @6
                i32.const -1
              else
                local.get 0
                local.get 3
                i32.const 1
                i32.shl
                i32.add
                i32.load16_u
              end
              i32.const 34
              i32.ne
            else
              i32.const 0
            end
            if  ;; label = @5
              local.get 3
              i32.const 1
              i32.add
              local.get 3
              local.get 3
              local.get 0
              i32.const 20
              i32.sub
              i32.load offset=16
              i32.const 1
              i32.shr_u
              i32.ge_u
              if (result i32)  ;; label = @6
                i32.const -1
              else
                local.get 0
                local.get 3
                i32.const 1
                i32.shl
                i32.add
                i32.load16_u
              end
              i32.const 92
              i32.eq
              select
              i32.const 1
              i32.add
              local.set 3
              br 1 (;@4;)
            end
          end
          local.get 7
          i32.const 1
          i32.eq
          if (result i32)  ;; label = @4
            local.get 3
            i32.const 1
            i32.add
            local.tee 4
            local.get 0
            i32.const 20
            i32.sub
            i32.load offset=16
            i32.const 1
            i32.shr_u
            i32.ge_u
            if (result i32)  ;; label = @5
              i32.const -1
            else
              local.get 0
              local.get 4
              i32.const 1
              i32.shl
              i32.add
              i32.load16_u
            end
            i32.const 58
            i32.eq
          else
            i32.const 0
          end
          if (result i32)  ;; label = @4
            local.get 1
            i32.const 0
            local.get 1
            i32.const 0
            i32.gt_s
            select
            local.tee 1
            local.get 0
            i32.const 20
            i32.sub
            i32.load offset=16
            i32.const 1
            i32.shr_u
            local.tee 4
            local.get 1
            local.get 4
            i32.lt_s
            select
            local.tee 5
            local.get 3
            i32.const 0
            local.get 3
            i32.const 0
            i32.gt_s
            select
            local.tee 1
            local.get 4
            local.get 1
            local.get 4
            i32.lt_s
            select
            local.tee 6
            local.get 5
            local.get 6
            i32.lt_s
            select
            i32.const 1
            i32.shl
            local.set 8
            i32.const 1136
            local.set 1
            block  ;; label = @5
              local.get 5
              local.get 6
              local.get 5
              local.get 6
              i32.gt_s
              select
              i32.const 1
              i32.shl
              local.tee 5
              local.get 8
              i32.sub
              local.tee 6
              i32.eqz
              br_if 0 (;@5;)
              local.get 0
              local.set 1
              local.get 8
              i32.eqz
              local.get 5
              local.get 4
              i32.const 1
              i32.shl
              i32.eq
              i32.and
              br_if 0 (;@5;)
              local.get 6
              i32.const 2
              call 1
              local.tee 1
              local.get 0
              local.get 8
              i32.add
              local.get 6
              memory.copy
            end
            block (result i32)  ;; label = @5
              i32.const 1
              local.get 1
              local.get 2
              i32.eq
              br_if 0 (;@5;)
              drop
              i32.const 0
              local.get 2
              i32.eqz
              local.get 1
              i32.eqz
              i32.or
              br_if 0 (;@5;)
              drop
              i32.const 0
              local.get 1
              i32.const 20
              i32.sub
              i32.load offset=16
              i32.const 1
              i32.shr_u
              local.tee 6
              local.get 2
              i32.const 20
              i32.sub
              i32.load offset=16
              i32.const 1
              i32.shr_u
              i32.ne
              br_if 0 (;@5;)
              drop
              local.get 1
              local.set 5
              local.get 2
              local.set 4
              local.get 6
              local.tee 1
              i32.const 4
              i32.ge_u
              if (result i32)  ;; label = @6
                local.get 5
                i32.const 7
                i32.and
                local.get 4
                i32.const 7
                i32.and
                i32.or
              else
                i32.const 1
              end
              i32.eqz
              if  ;; label = @6
                loop  ;; label = @7
                  local.get 5
                  i64.load
                  local.get 4
                  i64.load
                  i64.eq
                  if  ;; label = @8
                    local.get 5
                    i32.const 8
                    i32.add
                    local.set 5
                    local.get 4
                    i32.const 8
                    i32.add
                    local.set 4
                    local.get 1
                    i32.const 4
                    i32.sub
                    local.tee 1
                    i32.const 4
                    i32.ge_u
                    br_if 1 (;@7;)
                  end
                end
              end
              block  ;; label = @6
                loop  ;; label = @7
                  local.get 1
                  local.tee 6
                  i32.const 1
                  i32.sub
                  local.set 1
                  local.get 6
                  if  ;; label = @8
                    local.get 5
                    i32.load16_u
                    local.tee 9
                    local.get 4
                    i32.load16_u
                    local.tee 8
                    i32.sub
                    local.set 6
                    local.get 8
                    local.get 9
                    i32.ne
                    br_if 2 (;@6;)
                    local.get 5
                    i32.const 2
                    i32.add
                    local.set 5
                    local.get 4
                    i32.const 2
                    i32.add
                    local.set 4
                    br 1 (;@7;)
                  end
                end
                i32.const 0
                local.set 6
              end
              local.get 6
              i32.eqz
            end
          else
            i32.const 0
          end
          if  ;; label = @4
            local.get 3
            i32.const 2
            i32.add
            return
          end
        end
        local.get 3
        i32.const 1
        i32.add
        local.set 3
        br 1 (;@1;)
      end
    end
    i32.const -1)
  (func (;15;) (type 4)
    i32.const 1028
    i32.const 1024
    i32.store
    i32.const 1032
    i32.const 1024
    i32.store
    i32.const 1024
    global.set 1
    i32.const 1060
    i32.const 1056
    i32.store
    i32.const 1064
    i32.const 1056
    i32.store
    i32.const 1056
    global.set 3)
  (func (;16;) (type 0) (param i32 i32) (result i32)
    (local i32 i32 i32 i32 i32 i32 i32)
    local.get 0
    i32.const 20
    i32.sub
    local.set 2
    local.get 0
    i32.const 3180
    i32.lt_u
    if  ;; label = @1
      local.get 1
      local.get 2
      i32.load offset=12
      call 1
      local.tee 3
      local.get 0
      local.get 1
      local.get 2
      i32.load offset=16
      local.tee 0
      local.get 0
      local.get 1
      i32.gt_u
      select
      memory.copy
      local.get 3
      return
    end
    local.get 1
    i32.const 1073741804
    i32.gt_u
    if  ;; label = @1
      unreachable
    end
    global.get 2
    local.get 2
    i32.load
    i32.const -4
    i32.and
    i32.const 4
    i32.add
    i32.sub
    global.set 2
    global.get 0
    i32.eqz
    if  ;; label = @1
      call 9
    end
    local.get 1
    i32.const 16
    i32.add
    local.set 3
    local.get 0
    i32.const 16
    i32.sub
    local.tee 2
    i32.const 3180
    i32.lt_u
    if  ;; label = @1
      local.get 2
      i32.const 4
      i32.sub
      local.set 0
      local.get 2
      i32.const 15
      i32.and
      i32.const 1
      local.get 2
      select
      if (result i32)  ;; label = @2
        i32.const 1
      else
        local.get 0
        i32.load
        i32.const 1
        i32.and
      end
      if  ;; label = @2
        unreachable
      end
      global.get 0
      local.get 0
      local.get 3
      call 8
      local.set 0
    else
      local.get 2
      i32.const 4
      i32.sub
      local.set 0
      local.get 2
      i32.const 15
      i32.and
      i32.const 1
      local.get 2
      select
      if (result i32)  ;; label = @2
        i32.const 1
      else
        local.get 0
        i32.load
        i32.const 1
        i32.and
      end
      if  ;; label = @2
        unreachable
      end
      local.get 3
      i32.const 1073741820
      i32.gt_u
      if  ;; label = @2
        unreachable
      end
      global.get 0
      local.set 6
      block  ;; label = @2
        local.get 3
        i32.const 12
        i32.le_u
        if (result i32)  ;; label = @3
          i32.const 12
        else
          local.get 3
          i32.const 19
          i32.add
          i32.const -16
          i32.and
          i32.const 4
          i32.sub
        end
        local.tee 4
        local.get 0
        i32.load
        local.tee 7
        i32.const -4
        i32.and
        local.tee 5
        i32.le_u
        if  ;; label = @3
          local.get 6
          local.get 0
          local.get 4
          call 4
          br 1 (;@2;)
        end
        local.get 0
        i32.const 4
        i32.add
        local.get 0
        i32.load
        i32.const -4
        i32.and
        i32.add
        local.tee 2
        i32.load
        local.tee 8
        i32.const 1
        i32.and
        if  ;; label = @3
          local.get 5
          i32.const 4
          i32.add
          local.get 8
          i32.const -4
          i32.and
          i32.add
          local.tee 5
          local.get 4
          i32.ge_u
          if  ;; label = @4
            local.get 6
            local.get 2
            call 3
            local.get 0
            local.get 7
            i32.const 3
            i32.and
            local.get 5
            i32.or
            i32.store
            local.get 6
            local.get 0
            local.get 4
            call 4
            br 2 (;@2;)
          end
        end
        local.get 6
        local.get 0
        local.get 3
        call 8
        local.set 0
      end
    end
    local.get 0
    i32.const 20
    i32.add
    local.tee 0
    i32.const 20
    i32.sub
    local.tee 2
    local.get 1
    i32.store offset=16
    local.get 2
    i32.load offset=4
    i32.const -4
    i32.and
    local.get 2
    i32.store offset=8
    local.get 2
    i32.load offset=8
    local.tee 1
    local.get 2
    local.get 1
    i32.load offset=4
    i32.const 3
    i32.and
    i32.or
    i32.store offset=4
    global.get 2
    local.get 2
    i32.load
    i32.const -4
    i32.and
    i32.const 4
    i32.add
    i32.add
    global.set 2
    local.get 0)
  (func (;17;) (type 5) (param i32 i32) (result i64)
    (local i32 i32 i32 i32 i32 i32 i32)
    local.get 0
    local.get 1
    i32.add
    local.tee 5
    local.get 0
    i32.lt_u
    if  ;; label = @1
      unreachable
    end
    local.get 1
    i32.const 1
    i32.shl
    i32.const 2
    call 1
    local.tee 6
    local.set 1
    loop  ;; label = @1
      local.get 0
      local.get 5
      i32.lt_u
      if  ;; label = @2
        block  ;; label = @3
          local.get 0
          i32.load8_u
          local.set 3
          local.get 0
          i32.const 1
          i32.add
          local.set 0
          local.get 3
          i32.const 128
          i32.and
          if  ;; label = @4
            local.get 0
            local.get 5
            i32.eq
            br_if 1 (;@3;)
            local.get 0
            i32.load8_u
            i32.const 63
            i32.and
            local.set 7
            local.get 0
            i32.const 1
            i32.add
            local.set 0
            local.get 3
            i32.const 224
            i32.and
            i32.const 192
            i32.eq
            if  ;; label = @5
              local.get 1
              local.get 3
              i32.const 31
              i32.and
              i32.const 6
              i32.shl
              local.get 7
              i32.or
              i32.store16
            else
              local.get 0
              local.get 5
              i32.eq
              br_if 2 (;@3;)
              local.get 0
              i32.load8_u
              i32.const 63
              i32.and
              local.set 8
              local.get 0
              i32.const 1
              i32.add
              local.set 0
              local.get 3
              i32.const 240
              i32.and
              i32.const 224
              i32.eq
              if  ;; label = @6
                local.get 3
                i32.const 15
                i32.and
                i32.const 12
                i32.shl
                local.get 7
                i32.const 6
                i32.shl
                i32.or
                local.get 8
                i32.or
                local.set 3
              else
                local.get 0
                local.get 5
                i32.eq
                br_if 3 (;@3;)
                local.get 0
                i32.load8_u
                i32.const 63
                i32.and
                local.get 3
                i32.const 7
                i32.and
                i32.const 18
                i32.shl
                local.get 7
                i32.const 12
                i32.shl
                i32.or
                local.get 8
                i32.const 6
                i32.shl
                i32.or
                i32.or
                local.set 3
                local.get 0
                i32.const 1
                i32.add
                local.set 0
              end
              local.get 3
              i32.const 65536
              i32.lt_u
              if  ;; label = @6
                local.get 1
                local.get 3
                i32.store16
              else
                local.get 1
                local.get 3
                i32.const 65536
                i32.sub
                local.tee 3
                i32.const 10
                i32.shr_u
                i32.const 55296
                i32.or
                local.get 3
                i32.const 1023
                i32.and
                i32.const 56320
                i32.or
                i32.const 16
                i32.shl
                i32.or
                i32.store
                local.get 1
                i32.const 2
                i32.add
                local.set 1
              end
            end
          else
            local.get 1
            local.get 3
            i32.store16
          end
          local.get 1
          i32.const 2
          i32.add
          local.set 1
          br 2 (;@1;)
        end
      end
    end
    local.get 6
    local.get 1
    local.get 6
    i32.sub
    call 16
    local.tee 3
    local.get 3
    i32.const 0
    i32.const 1104
    call 14
    i32.const 1168
    call 14
    local.tee 0
    i32.const 0
    i32.lt_s
    if (result i32)  ;; label = @1
      i32.const 1
    else
      local.get 0
      local.get 3
      i32.const 20
      i32.sub
      i32.load offset=16
      i32.const 1
      i32.shr_u
      i32.ge_u
      if (result i32)  ;; label = @2
        i32.const -1
      else
        local.get 3
        local.get 0
        i32.const 1
        i32.shl
        i32.add
        i32.load16_u
      end
      i32.const 34
      i32.ne
    end
    if  ;; label = @1
      i32.const 1200
      i32.const 1
      call 13
      return
    end
    local.get 0
    i32.const 1
    i32.add
    local.set 1
    loop  ;; label = @1
      local.get 1
      local.get 3
      i32.const 20
      i32.sub
      i32.load offset=16
      i32.const 1
      i32.shr_u
      local.tee 0
      i32.lt_s
      if  ;; label = @2
        local.get 0
        local.get 1
        i32.le_u
        if (result i32)  ;; label = @3
          i32.const -1
        else
          local.get 3
          local.get 1
          i32.const 1
          i32.shl
          i32.add
          i32.load16_u
        end
        local.tee 5
        i32.const 34
        i32.ne
        if  ;; label = @3
          local.get 5
          i32.const 32
          i32.eq
          local.set 0
          local.get 5
          i32.const 92
          i32.eq
          if  ;; label = @4
            local.get 1
            i32.const 1
            i32.add
            local.tee 1
            local.get 3
            i32.const 20
            i32.sub
            i32.load offset=16
            i32.const 1
            i32.shr_u
            i32.ge_u
            if (result i32)  ;; label = @5
              i32.const -1
            else
              local.get 3
              local.get 1
              i32.const 1
              i32.shl
              i32.add
              i32.load16_u
            end
            local.tee 0
            i32.const 116
            i32.eq
            local.get 0
            i32.const 110
            i32.eq
            i32.or
            local.get 0
            i32.const 114
            i32.eq
            i32.or
            local.set 0
          end
          local.get 2
          local.get 2
          i32.const 1
          i32.add
          local.get 0
          local.get 4
          i32.or
          select
          local.set 2
          local.get 0
          i32.eqz
          local.set 4
          local.get 1
          i32.const 1
          i32.add
          local.set 1
          br 2 (;@1;)
        end
      end
    end
    i32.const 1424
    i32.const 1376
    call 2
    i32.const 1504
    call 2
    local.set 0
    i32.const 1
    global.set 4
    i32.const 1
    local.get 0
    call 6
    local.tee 0
    local.get 0
    i32.const 20
    i32.sub
    i32.load offset=16
    call 0
    drop
    i32.const 1536
    local.get 2
    if (result i32)  ;; label = @1
      i32.const 0
      local.get 2
      i32.sub
      local.get 2
      local.get 2
      i32.const 31
      i32.shr_u
      i32.const 1
      i32.shl
      local.tee 2
      select
      local.tee 1
      i32.const 100000
      i32.lt_u
      if (result i32)  ;; label = @2
        local.get 1
        i32.const 100
        i32.lt_u
        if (result i32)  ;; label = @3
          local.get 1
          i32.const 10
          i32.ge_u
          i32.const 1
          i32.add
        else
          local.get 1
          i32.const 10000
          i32.ge_u
          i32.const 3
          i32.add
          local.get 1
          i32.const 1000
          i32.ge_u
          i32.add
        end
      else
        local.get 1
        i32.const 10000000
        i32.lt_u
        if (result i32)  ;; label = @3
          local.get 1
          i32.const 1000000
          i32.ge_u
          i32.const 6
          i32.add
        else
          local.get 1
          i32.const 1000000000
          i32.ge_u
          i32.const 8
          i32.add
          local.get 1
          i32.const 100000000
          i32.ge_u
          i32.add
        end
      end
      local.tee 0
      i32.const 1
      i32.shl
      local.get 2
      i32.add
      i32.const 2
      call 1
      local.tee 3
      local.get 2
      i32.add
      local.set 4
      loop  ;; label = @2
        local.get 1
        i32.const 10000
        i32.ge_u
        if  ;; label = @3
          local.get 1
          i32.const 10000
          i32.rem_u
          local.set 5
          local.get 1
          i32.const 10000
          i32.div_u
          local.set 1
          local.get 4
          local.get 0
          i32.const 4
          i32.sub
          local.tee 0
          i32.const 1
          i32.shl
          i32.add
          local.get 5
          i32.const 100
          i32.div_u
          i32.const 2
          i32.shl
          i32.const 1596
          i32.add
          i64.load32_u
          local.get 5
          i32.const 100
          i32.rem_u
          i32.const 2
          i32.shl
          i32.const 1596
          i32.add
          i64.load32_u
          i64.const 32
          i64.shl
          i64.or
          i64.store
          br 1 (;@2;)
        end
      end
      local.get 1
      i32.const 100
      i32.ge_u
      if  ;; label = @2
        local.get 4
        local.get 0
        i32.const 2
        i32.sub
        local.tee 0
        i32.const 1
        i32.shl
        i32.add
        local.get 1
        i32.const 100
        i32.rem_u
        i32.const 2
        i32.shl
        i32.const 1596
        i32.add
        i32.load
        i32.store
        local.get 1
        i32.const 100
        i32.div_u
        local.set 1
      end
      local.get 1
      i32.const 10
      i32.ge_u
      if  ;; label = @2
        local.get 4
        local.get 0
        i32.const 2
        i32.sub
        i32.const 1
        i32.shl
        i32.add
        local.get 1
        i32.const 2
        i32.shl
        i32.const 1596
        i32.add
        i32.load
        i32.store
      else
        local.get 4
        local.get 0
        i32.const 1
        i32.sub
        i32.const 1
        i32.shl
        i32.add
        local.get 1
        i32.const 48
        i32.add
        i32.store16
      end
      local.get 2
      if  ;; label = @2
        local.get 3
        i32.const 45
        i32.store16
      end
      local.get 3
    else
      i32.const 1584
    end
    call 2
    i32.const 3168
    call 2
    i32.const 0
    call 13)
  (func (;18;) (type 2) (param i32) (result i32)
    (local i32)
    local.get 0
    i32.const 1073741820
    i32.gt_u
    if  ;; label = @1
      unreachable
    end
    local.get 0
    i32.const 1
    call 1
    local.tee 1
    i32.const 0
    local.get 0
    memory.fill
    local.get 1
    call 12
    local.get 1)
  (memory (;0;) 1)
  (global (;0;) (mut i32) (i32.const 0))
  (global (;1;) (mut i32) (i32.const 0))
  (global (;2;) (mut i32) (i32.const 0))
  (global (;3;) (mut i32) (i32.const 0))
  (global (;4;) (mut i32) (i32.const 0))
  (export "alloc" (func 18))
  (export "run" (func 17))
  (export "memory" (memory 0))
  (start 15)
  (data (;0;) (i32.const 1084) "\1c")
  (data (;1;) (i32.const 1096) "\02\00\00\00\0a\00\00\00i\00n\00p\00u\00t")
  (data (;2;) (i32.const 1116) "\1c")
  (data (;3;) (i32.const 1128) "\02")
  (data (;4;) (i32.const 1148) "\1c")
  (data (;5;) (i32.const 1160) "\02\00\00\00\08\00\00\00t\00e\00x\00t")
  (data (;6;) (i32.const 1180) "\ac")
  (data (;7;) (i32.const 1192) "\02\00\00\00\9c\00\00\00{\00\22\00c\00o\00d\00e\00\22\00:\00\22\00i\00n\00v\00a\00l\00i\00d\00_\00i\00n\00p\00u\00t\00\22\00,\00\22\00m\00e\00s\00s\00a\00g\00e\00\22\00:\00\22\00i\00n\00p\00u\00t\00.\00t\00e\00x\00t\00 \00i\00s\00 \00m\00i\00s\00s\00i\00n\00g\00:\00 \00s\00e\00n\00d\00 \00{\00\5c\00\22\00t\00e\00x\00t\00\5c\00\22\00:\00 \00& }\00\22\00}")
  (data (;8;) (i32.const 1356) ",")
  (data (;9;) (i32.const 1368) "\02\00\00\00\0e\00\00\00c\00o\00u\00n\00t\00e\00d")
  (data (;10;) (i32.const 1404) "L")
  (data (;11;) (i32.const 1416) "\02\00\00\006\00\00\00{\00\22\00l\00e\00v\00e\00l\00\22\00:\00\22\00i\00n\00f\00o\00\22\00,\00\22\00m\00e\00s\00s\00a\00g\00e\00\22\00:\00\22")
  (data (;12;) (i32.const 1484) "\1c")
  (data (;13;) (i32.const 1496) "\02\00\00\00\04\00\00\00\22\00}")
  (data (;14;) (i32.const 1516) ",")
  (data (;15;) (i32.const 1528) "\02\00\00\00\12\00\00\00{\00\22\00w\00o\00r\00d\00s\00\22\00:")
  (data (;16;) (i32.const 1564) "\1c")
  (data (;17;) (i32.const 1576) "\02\00\00\00\02\00\00\000")
  (data (;18;) (i32.const 1596) "0\000\000\001\000\002\000\003\000\004\000\005\000\006\000\007\000\008\000\009\001\000\001\001\001\002\001\003\001\004\001\005\001\006\001\007\001\008\001\009\002\000\002\001\002\002\002\003\002\004\002\005\002\006\002\007\002\008\002\009\003\000\003\001\003\002\003\003\003\004\003\005\003\006\003\007\003\008\003\009\004\000\004\001\004\002\004\003\004\004\004\005\004\006\004\007\004\008\004\009\005\000\005\001\005\002\005\003\005\004\005\005\005\006\005\007\005\008\005\009\006\000\006\001\006\002\006\003\006\004\006\005\006\006\006\007\006\008\006\009\007\000\007\001\007\002\007\003\007\004\007\005\007\006\007\007\007\008\007\009\008\000\008\001\008\002\008\003\008\004\008\005\008\006\008\007\008\008\008\009\009\000\009\001\009\002\009\003\009\004\009\005\009\006\009\007\009\008\009\009")
  (data (;19;) (i32.const 1996) "\1c\04")
  (data (;20;) (i32.const 2008) "\02\00\00\00\00\04\00\000\000\000\001\000\002\000\003\000\004\000\005\000\006\000\007\000\008\000\009\000\00a\000\00b\000\00c\000\00d\000\00e\000\00f\001\000\001\001\001\002\001\003\001\004\001\005\001\006\001\007\001\008\001\009\001\00a\001\00b\001\00c\001\00d\001\00e\001\00f\002\000\002\001\002\002\002\003\002\004\002\005\002\006\002\007\002\008\002\009\002\00a\002\00b\002\00c\002\00d\002\00e\002\00f\003\000\003\001\003\002\003\003\003\004\003\005\003\006\003\007\003\008\003\009\003\00a\003\00b\003\00c\003\00d\003\00e\003\00f\004\000\004\001\004\002\004\003\004\004\004\005\004\006\004\007\004\008\004\009\004\00a\004\00b\004\00c\004\00d\004\00e\004\00f\005\000\005\001\005\002\005\003\005\004\005\005\005\006\005\007\005\008\005\009\005\00a\005\00b\005\00c\005\00d\005\00e\005\00f\006\000\006\001\006\002\006\003\006\004\006\005\006\006\006\007\006\008\006\009\006\00a\006\00b\006\00c\006\00d\006\00e\006\00f\007\000\007\001\007\002\007\003\007\004\007\005\007\006\007\007\007\008\007\009\007\00a\007\00b\007\00c\007\00d\007\00e\007\00f\008\000\008\001\008\002\008\003\008\004\008\005\008\006\008\007\008\008\008\009\008\00a\008\00b\008\00c\008\00d\008\00e\008\00f\009\000\009\001\009\002\009\003\009\004\009\005\009\006\009\007\009\008\009\009\009\00a\009\00b\009\00c\009\00d\009\00e\009\00f\00a\000\00a\001\00a\002\00a\003\00a\004\00a\005\00a\006\00a\007\00a\008\00a\009\00a\00a\00a\00b\00a\00c\00a\00d\00a\00e\00a\00f\00b\000\00b\001\00b\002\00b\003\00b\004\00b\005\00b\006\00b\007\00b\008\00b\009\00b\00a\00b\00b\00b\00c\00b\00d\00b\00e\00b\00f\00c\000\00c\001\00c\002\00c\003\00c\004\00c\005\00c\006\00c\007\00c\008\00c\009\00c\00a\00c\00b\00c\00c\00c\00d\00c\00e\00c\00f\00d\000\00d\001\00d\002\00d\003\00d\004\00d\005\00d\006\00d\007\00d\008\00d\009\00d\00a\00d\00b\00d\00c\00d\00d\00d\00e\00d\00f\00e\000\00e\001\00e\002\00e\003\00e\004\00e\005\00e\006\00e\007\00e\008\00e\009\00e\00a\00e\00b\00e\00c\00e\00d\00e\00e\00e\00f\00f\000\00f\001\00f\002\00f\003\00f\004\00f\005\00f\006\00f\007\00f\008\00f\009\00f\00a\00f\00b\00f\00c\00f\00d\00f\00e\00f\00f")
  (data (;21;) (i32.const 3052) "\5c")
  (data (;22;) (i32.const 3064) "\02\00\00\00H\00\00\000\001\002\003\004\005\006\007\008\009\00a\00b\00c\00d\00e\00f\00g\00h\00i\00j\00k\00l\00m\00n\00o\00p\00q\00r\00s\00t\00u\00v\00w\00x\00y\00z")
  (data (;23;) (i32.const 3148) "\1c")
  (data (;24;) (i32.const 3160) "\02\00\00\00\02\00\00\00}"))
